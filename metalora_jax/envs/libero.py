"""LIBERO tasks as vision-language-action policies meet them: two cameras, a state of eight numbers, an action of seven.

The simulator is LIBERO's (Liu et al. 2023, arXiv:2306.03310) on robosuite and MuJoCo: a Franka Panda under
operational-space control at 20 Hz. Goals, placements, initial states and success are LIBERO's own; the way from one
episode to the next is not: LIBERO recompiles the model (4 to 10 s), this one draws or sets a new start (0.05 s).
"""

import contextlib
import functools
import importlib.util
import sys
import types
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from metalora_jax.data.libero_hdf5 import Moment, Origin
from metalora_jax.envs import arm_starts, gl, libero_starts, libero_trace, picture_noise, viewpoint
from metalora_jax.envs import libero_files as files
from metalora_jax.envs.conditions import Condition, execute
from metalora_jax.envs.frustum import out_of_view
from metalora_jax.envs.shifted_model import ShiftedModel
from metalora_jax.envs.world import Frame, Step, World, check_shift

CAMERAS = {"agentview": "agentview", "eye_in_hand": "robot0_eye_in_hand"}  # our name -> the model's camera
STATE_DIM = 8
ACTION_DIM = 7
SETTLE_STEPS = 10  # OpenVLA's: objects are set down a little above what they stand on
IDLE = np.array([0.0] * 6 + [-1.0])  # holds still, gripper open
_HIDDEN = 0  # the group of collision geometry, which LIBERO hides
_DRAWS = 100  # placements tried before a start counts as impossible


class Libero:
    """One task, see `world.Simulator`. A start below 50 is one of LIBERO's initial states, any other a seed.

    `reset(start)` sets the initial state number `start` of the task's 50, or draws objects from the regions that the
    task gives them, as LIBERO does when it records. Fixtures that the task places (cabinets, the stove) are no part of
    an initial state: they are drawn with `start` as seed in either case.

    State (8,): the hand's x, y, z [m], its axis-angle [rad] (as OpenVLA computes it), the two finger joints [m].
    Commands (7,): x, y, z, turn about x, y, z, each in [-1, 1] for at most 5 cm and 0.5 rad; gripper: -1 opens, 1
    closes.
    Images are turned by 180 degrees from how robosuite gives them (first row at the bottom): so they are upright and
    mirrored left to right, as OpenVLA turned LIBERO's recordings, and every VLA since has been trained to see them.

    Attributes:
      task, instruction: see `libero_files.instruction`.
      simulator: LIBERO's environment (robosuite's MujocoEnv), for experts: `sim.model`, `sim.data`, `parsed_problem`,
        `objects_dict`, `fixtures_dict`, `object_states_dict`. Read-only; never step it.
      at: the episode's start, and the control steps since, by which a condition's `picture_noise` is drawn.
    """

    def __init__(
        self,
        task: str,
        cameras: Sequence[str] = tuple(CAMERAS),
        image_size: int = 128,
        fast: bool = True,
        settle_steps: int = SETTLE_STEPS,
    ):
        """Builds the simulator (3 to 11 s); the renderer is built when the first picture is requested.

        Args:
          task: one of `libero_files.tasks()`.
          cameras: some of CAMERAS, in order.
          image_size: height and width [px].
          fast: no shadows, reflections and multisampling, and nothing is drawn that is out of view: both cameras take
            50 to 70 ms of a core, not 250, and pixels change by 1 to 3 / 255 on average (128 px, software rendering; a
            step takes 20 ms).
          settle_steps: idle control steps within `reset`.

        Raises:
          ValueError: if a task or camera is unknown, or a size or number of steps is out of range.
          libero_files.MissingLibero: if LIBERO or its assets are missing.
        """
        if unknown := set(cameras) - set(CAMERAS):
            raise ValueError(f"no cameras named {sorted(unknown)}; choose from {', '.join(CAMERAS)}")
        if image_size < 1 or settle_steps < 0:
            raise ValueError(f"image_size {image_size} and settle_steps {settle_steps} must be at least 1 and 0")
        self.task = task
        self.instruction = files.instruction(task)
        self._image_size, self._fast, self._settle_steps = image_size, fast, settle_steps
        self._init_states = files.init_states(task)
        self.simulator: Any = _build(files.definition(task))
        self._model, self._data = self.simulator.sim.model._model, self.simulator.sim.data._data
        if self._init_states.shape[1] != 1 + self._model.nq + self._model.nv:
            raise ValueError(
                f"{task}: initial states have {self._init_states.shape[1]} numbers, which does not fit its scene"
            )
        self._names = tuple(cameras)
        self._cameras = [self._model.camera(CAMERAS[name]).id for name in cameras]
        self._shifted = ShiftedModel(self._model, dict(zip(cameras, self._cameras, strict=True)))
        self._fixtures = [self._model.body(each.root_body).id for each in self.simulator.fixtures_dict.values()]
        self._site_colours = self._model.site_rgba.copy()
        self._renderer: Any = None
        self._condition: Condition | None = None
        self._queue: deque[np.ndarray] = deque()
        self.at = 0, 0

    def __enter__(self) -> "Libero":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Frees the renderer's GL context and the scene."""
        if self._renderer is not None:
            self._renderer.close()
        self.simulator.close()

    def reset(self, start: int, condition: Condition = Condition()) -> None:  # noqa: B008 (frozen)
        """See `world.Simulator`; the condition's action shifts do not apply while objects settle.

        Raises:
          ValueError: if `start` is not a seed (0 to 2^32 - 1), or objects find no room.
        """
        check_shift(condition, "libero", WORLD)
        self._condition, self.at = condition, (start, 0)
        self._queue = deque([IDLE] * condition.latency)
        self._model.site_rgba[:] = self._site_colours  # LIBERO lights the stove's flame with them
        # As compiled: LIBERO places what is in a fixture by where its parts are while the fixture itself is not placed.
        self._model.body_pos[self._fixtures], self._model.body_quat[self._fixtures] = 0.0, (1.0, 0.0, 0.0, 0.0)
        if self._shifted.shift(condition) and self._renderer is not None:
            self._renderer.close()
            self._renderer = None
        environment = self.simulator
        environment.robots[0].gripper.current_action = np.zeros(environment.robots[0].gripper.dof)
        robot, pose = environment.robots[0], np.asarray(arm_starts.NOMINAL)
        if condition.arm_start:
            pose = arm_starts.pose(condition.arm_start)
        robot.init_qpos = pose  # the controller's goals, too, until it is told of others
        with _seeded(start):
            _drawn(environment.reset)
        if start < files.INIT_STATES:
            environment.sim.set_state_from_flattened(self._init_states[start])
            environment.sim.forward()
        if condition.arm_start:
            libero_starts.begin_arm(environment, condition, drawn=start >= files.INIT_STATES)
        if condition.displaced:
            reach = condition.displaced * libero_starts.radius(files.suite_of(self.task), self.task)
            libero_starts.displace(environment, reach, condition.displaced_seed)
        environment._post_process()
        for _ in range(self._settle_steps):
            environment.step(IDLE)

    def observe(self) -> Frame:
        """Renders the cameras and reads the state. It changes nothing: the episode is the same without it."""
        condition = self._begun()
        if self._renderer is None:
            self._renderer = _renderer(self._model, self._image_size, self._fast)
        images = []
        for name, camera in zip(self._names, self._cameras, strict=True):
            self._update(camera)
            image = self._renderer.render()[:, ::-1]  # the renderer has turned it upright already
            if condition.picture_noise and name == viewpoint.CAMERA:
                image = picture_noise.spoiled(image, condition.picture_noise, *self.at)
            images.append(image)
        robot = self.simulator.robots[0]
        hand = self._data.xquat[self.simulator.sim.model.body_name2id(robot.robot_model.eef_name)]
        fingers = self._data.qpos[robot._ref_gripper_joint_pos_indexes]
        state = np.concatenate([self._data.site_xpos[robot.eef_site_id], axis_angle(hand), fingers])
        return Frame(np.stack(images), state.astype(np.float32))

    def _update(self, camera: int) -> None:
        """Brings the renderer's scene up to date; where nothing casts shadows, without what `camera` cannot see."""
        groups = self._model.geom_group.copy()
        if self._fast:
            self._model.geom_group[out_of_view(self._model, self._data, camera)] = _HIDDEN
        self._renderer.update_scene(self._data, camera=camera, scene_option=_visible())
        self._model.geom_group[:] = groups

    def step(self, command: np.ndarray) -> Step:
        """Sends one command (7,). The reward is 1 if the task's goal is met, else 0.

        Raises:
          ValueError: if the command has the wrong shape or is not finite.
        """
        command = np.asarray(command, np.float64)
        if command.shape != (ACTION_DIM,) or not np.isfinite(command).all():
            raise ValueError(f"command {command} for {self.task} must be {ACTION_DIM} finite numbers")
        condition = self._begun()
        self._queue.append(execute(command, condition))
        self.at = self.at[0], self.at[1] + 1
        _, reward, _, _ = self.simulator.step(self._queue.popleft())
        return Step(float(reward), reward > 0)

    def expert(self) -> Callable[[], np.ndarray]:
        """The scripted expert of `libero_expert`."""
        from metalora_jax.envs.libero_expert import expert

        self._begun()
        return expert(self)

    def origin(self) -> Origin:
        """See `world.Traced`."""
        self._begun()
        return libero_trace.origin(self.simulator, files.definition(self.task), _options())

    def moment(self) -> Moment:
        """See `world.Traced`."""
        self._begun()
        return libero_trace.moment(self.simulator)

    def _begun(self) -> Condition:
        if self._condition is None:
            raise RuntimeError(f"{self.task} has no state yet; call reset(start) first")
        return self._condition


def axis_angle(quaternion: np.ndarray) -> np.ndarray:
    """A rotation (3,) [rad] from MuJoCo's quaternion (w, x, y, z), with angles from 0 to 2 pi, as OpenVLA computes it.

    It is not the shortest one: q and -q differ. Policies are trained with these values.
    """
    w = np.clip(quaternion[0], -1.0, 1.0)
    sine = np.sqrt(1.0 - w * w)
    return np.zeros(3) if sine < 1e-9 else quaternion[1:] * 2.0 * np.arccos(w) / sine


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """LIBERO draws from NumPy's global generator: seeds it, and restores its state afterwards."""
    before = np.random.get_state()  # noqa: NPY002 (LIBERO's)
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002


def _drawn(place: Callable[[], Any]) -> Any:
    """The result of `place` once its objects have found room."""
    from robosuite.utils.errors import RandomizationError

    for _ in range(_DRAWS):
        with contextlib.suppress(RandomizationError):
            return place()
    raise ValueError(f"the task's objects found no room in {_DRAWS} draws; choose another start")


def _build(definition: Path) -> Any:
    problems = _import_libero()
    from libero.libero.envs import bddl_utils

    make = problems[bddl_utils.get_problem_info(str(definition))["problem_name"]]
    with _seeded(0):  # what construction draws is drawn again by every reset
        return _drawn(lambda: make(str(definition), **_options()))


def _options() -> dict[str, Any]:
    """The arguments of every environment, besides its task."""
    from robosuite import load_controller_config

    return dict(
        robots=["Panda"],
        controller_configs=load_controller_config(default_controller="OSC_POSE"),
        initialization_noise=None,
        has_offscreen_renderer=False,
        use_camera_obs=False,
        ignore_done=True,  # the caller caps the steps
        hard_reset=False,
        control_freq=20,
    )


@functools.cache
def _import_libero() -> dict[str, Any]:
    """LIBERO's environments by the name of their problem; imported without questions, and no log file in /tmp."""
    files.settle_config()
    assets = files.assets()
    gl.choose()  # robosuite would choose EGL, whether available or not
    found = importlib.util.find_spec("robosuite")
    if found is None or found.origin is None:
        raise files.MissingLibero(f"robosuite is not installed; install it with: {files.INSTALL}")
    if not Path(found.origin).with_name("macros_private.py").exists():
        # Its own way of configuration. Otherwise it warns, and logs to one file that all users of a machine share.
        settings = types.ModuleType("robosuite.macros_private")
        settings.FILE_LOGGING_LEVEL = None  # type: ignore[attr-defined]
        sys.modules[settings.__name__] = settings
    import libero.libero

    libero.libero._assets_path_cache = str(assets)
    from libero.libero.envs import TASK_MAPPING

    return TASK_MAPPING


@functools.cache
def _visible() -> Any:
    """Visual geometry, without the collision geometry that LIBERO hides, too."""
    import mujoco

    option = mujoco.MjvOption()
    option.geomgroup[_HIDDEN] = 0
    return option


def _renderer(model: Any, image_size: int, fast: bool) -> Any:
    import mujoco

    model.vis.global_.offwidth = model.vis.global_.offheight = image_size
    if fast:
        model.vis.quality.shadowsize = model.vis.quality.offsamples = 0
    renderer = gl.renderer(model, image_size)
    if fast:
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            renderer.scene.flags[flag] = 0
    return renderer


def episode_start(task: str, draw: int, number: int) -> int:
    """One of the 50 initial states: `number` itself for draw 0, as LIBERO's evaluation numbers its trials.

    Draw d begins at 10 d, modulo 50: up to five draws of up to ten episodes are disjoint. Demonstrations are recorded
    from starts that are not initial states (50 and above).

    Raises:
      ValueError: if `number` is not in 0..49: a 51st episode would repeat the first.
    """
    if not 0 <= number < files.INIT_STATES:
        raise ValueError(f"episode {number} of {task}: LIBERO has initial states 0 to {files.INIT_STATES - 1} only")
    return (10 * draw + number) % files.INIT_STATES


def demo_steps(task: str) -> int:
    """The step cap of the task's suite."""
    return files.STEPS[files.suite_of(task)]


WORLD = World(
    tuple(CAMERAS),
    STATE_DIM,
    ACTION_DIM,
    files.tasks,
    files.instruction,
    Libero,
    episode_start,
    demo_steps,
    files.suite_of,
    files.facts,
    gl.choose,
    shifts=("view", "arm_start", "displaced", "picture_noise"),
)
