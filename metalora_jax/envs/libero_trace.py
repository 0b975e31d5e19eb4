"""What LIBERO's files store about an episode besides what a policy sees; see `world.Traced`."""

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from metalora_jax.data.libero_hdf5 import Moment, Origin


def origin(simulator: Any, definition: Path, options: dict[str, Any]) -> Origin:
    """The origin of the current episode.

    Args:
      simulator: LIBERO's environment.
      definition: the BDDL file that it was made from.
      options: its other arguments; JSON.
    """
    return Origin(
        model_file=_scene(simulator),
        env_name=type(simulator).__name__,
        problem_name=type(simulator).__name__.lower(),
        bddl_file_name=str(Path("bddl_files", definition.parent.name, definition.name)),
        bddl_file_content=definition.read_text(),
        env_kwargs=options,
    )


def moment(simulator: Any) -> Moment:
    """The simulator's current state."""
    robot, data = simulator.robots[0], simulator.sim.data._data
    w, x, y, z = data.xquat[simulator.sim.model.body_name2id(robot.robot_model.eef_name)]
    fingers = data.qpos[robot._ref_gripper_joint_pos_indexes]
    hand = np.concatenate([fingers, data.site_xpos[robot.eef_site_id], (x, y, z, w)])  # robosuite's order
    return Moment(simulator.sim.get_state().flatten(), hand, data.qpos[robot._ref_joint_pos_indexes].copy())


def _scene(simulator: Any) -> str:
    """The model in MuJoCo's XML, bodies where this episode has them: fixtures are placed without compiling."""
    tree, model = ElementTree.fromstring(simulator.model.get_xml()), simulator.sim.model
    for body in tree.iterfind("worldbody/body"):
        number = model.body_name2id(body.get("name"))
        body.set("pos", _numbers(model.body_pos[number]))
        body.set("quat", _numbers(model.body_quat[number]))
    return ElementTree.tostring(tree, encoding="unicode")


def _numbers(values: np.ndarray) -> str:
    return " ".join(repr(float(value)) for value in values)
