"""What a scripted expert may see of a LIBERO scene: poses, collision geometry and the goal, read from the simulator."""

from collections.abc import Callable
from typing import Any

import numpy as np

from metalora_jax.envs.libero_expert.boxes import Boxes

_NEVER = ("robot0", "gripper0", "mount0")  # prefixes of the robot's own bodies
_WRIST = np.array([0.088, 0.204])  # [m] from the grip site of a hand that points down, inwards and up, to the wrist
_EASY = 0.66  # [m] from shoulder to wrist
_FLOOR = 10.0  # [m] half side of the box that stands for an endless plane


class Joint:
    """One sliding or turning part of a fixture: a drawer, a door, a knob."""

    def __init__(self, scene: "Scene", number: int):
        self.scene, self._number = scene, number
        self._body = int(scene.model.jnt_bodyid[number])
        self.turns = scene.model.jnt_type[number] == 3  # a hinge; else it slides

    def value(self) -> float:
        """Where it stands now [m or rad]."""
        return float(self.scene.data.qpos[self.scene.model.jnt_qposadr[self._number]])

    def boxes(self) -> Boxes:
        """Collision geometry of the part."""
        return self.scene.part(self._body)

    def pose(self) -> tuple[np.ndarray, np.ndarray]:
        """Position (3,) [m] and rotation (3, 3) of the part."""
        return self.scene.data.xpos[self._body].copy(), self.scene.data.xmat[self._body].reshape(3, 3).copy()

    def axis(self) -> np.ndarray:
        """Unit vector (3,) along which it slides, or about which it turns."""
        return self.scene.data.xaxis[self._number].copy()

    def motion(self, point: np.ndarray) -> np.ndarray:
        """Unit vector (3,) along which a point (3,) of the part moves as the joint's value grows."""
        if not self.turns:
            return self.axis()
        way = np.cross(self.axis(), point - self.scene.data.xanchor[self._number])
        return way / np.linalg.norm(way)


class Scene:
    """A view of one robosuite environment; it never changes it."""

    def __init__(self, env: Any):
        """`env`: a LIBERO problem, as robosuite builds it."""
        import mujoco

        self.env = env
        self.model, self.data = env.sim.model._model, env.sim.data._data
        model = self.model
        parents = model.body_parentid
        self._ancestors = []
        for body in range(model.nbody):
            line = {body}
            while body:
                body = int(parents[body])
                line.add(body)
            self._ancestors.append(line)
        names = [mujoco.mj_id2name(model, mujoco.mjtObj.mjOBJ_BODY, body) or "" for body in range(model.nbody)]
        solid = (model.geom_contype | model.geom_conaffinity) != 0
        robot = np.array([names[body].startswith(_NEVER) for body in model.geom_bodyid])
        self._geoms = np.flatnonzero(solid & ~robot)
        self._plane = model.geom_type[self._geoms] == mujoco.mjtGeom.mjGEOM_PLANE
        robot0 = env.robots[0]
        self._shoulder = names.index("robot0_link1")
        self._site = robot0.eef_site_id
        self._fingers = [int(i) for i in robot0._ref_gripper_joint_pos_indexes]

    # The hand.

    def hand(self) -> tuple[np.ndarray, np.ndarray]:
        """Position (3,) [m] and rotation (3, 3) of the grip site."""
        return self.data.site_xpos[self._site].copy(), self.data.site_xmat[self._site].reshape(3, 3).copy()

    def opening(self) -> float:
        """Distance between the fingers [m]."""
        return float(np.abs(self.data.qpos[self._fingers]).sum())

    def grasped(self, name: str) -> bool:
        """Whether both fingers touch the object."""
        parts = self.env.robots[0].gripper.important_geoms
        return self.env._check_grasp([parts["left_finger"], parts["right_finger"]], self.env.get_object(name))

    def hold(self, name: str) -> np.ndarray:
        """Position (3,) [m] of the object in the hand's own frame."""
        position, rotation = self.hand()
        return rotation.T @ (self.origin(name) - position)

    def strain(self, positions: np.ndarray) -> np.ndarray:
        """How much (n,) the arm would be stretched with a hand that points down at positions (n, 3) [m].

        0 where it reaches with ease; beyond about 4 it cannot. The Panda's upper arm and forearm are 0.70 m together.
        """
        apart = positions - self.data.xpos[self._shoulder]
        wrist = np.hypot(np.linalg.norm(apart[:, :2], axis=1) - _WRIST[0], apart[:, 2] + _WRIST[1])
        return np.maximum(0.0, wrist - _EASY) / 0.01

    # Things.

    def origin(self, name: str) -> np.ndarray:
        """Position (3,) [m] of an object or fixture; it is what the goals judge."""
        return self.data.xpos[self.env.obj_body_id[name]].copy()

    def mass_center(self, name: str) -> np.ndarray:
        """Centre of mass (3,) [m]."""
        return self.data.subtree_com[self.env.obj_body_id[name]].copy()

    def boxes(self, name: str) -> Boxes:
        """Collision geometry of an object or fixture, where it is now."""
        return self._boxes(self._geoms[self._belongs(name)])

    def others(self, *names: str) -> Boxes:
        """Collision geometry of everything else, without the robot."""
        rest = np.ones(len(self._geoms), bool)
        for name in names:
            rest &= ~self._belongs(name)
        return self._boxes(self._geoms[rest])

    def around(self, name: str, place: str) -> tuple[Boxes, Boxes]:
        """What is around an object on its way to a place: all that stands below, and what is above the place."""
        others = self.others(name)
        above = np.zeros(len(others.centers), bool)
        if place in self.env.object_sites_dict:
            above = others.extent()[0][:, 2] > self.env.sim.data.get_site_xpos(place)[2]
        return Boxes(*(part[~above] for part in others)), Boxes(*(part[above] for part in others))

    def supported(self, name: str) -> bool:
        """Whether the object touches anything but the robot."""
        mine = self._belongs(name)
        solid = set(self._geoms.tolist())
        own = set(self._geoms[mine].tolist())
        pairs = [(int(c.geom1), int(c.geom2)) for c in self.data.contact[: self.data.ncon]]
        return any((a in own) != (b in own) and a in solid and b in solid for a, b in pairs)

    def _belongs(self, name: str) -> np.ndarray:
        body = self.env.obj_body_id[name]
        return np.array([body in self._ancestors[self.model.geom_bodyid[geom]] for geom in self._geoms])

    def _boxes(self, geoms: np.ndarray) -> Boxes:
        """Boxes around the geoms; a plane becomes a box whose top it is."""
        axes = self.data.geom_xmat[geoms].reshape(-1, 3, 3)
        halves = self.model.geom_aabb[geoms, 3:].copy()
        middle = self.model.geom_aabb[geoms, :3].copy()
        plane = np.isin(geoms, self._geoms[self._plane])
        halves[plane] = [_FLOOR, _FLOOR, 0.05]
        middle[plane] = [0.0, 0.0, -0.05]
        return Boxes(self.data.geom_xpos[geoms] + (axes @ middle[..., None])[..., 0], axes.copy(), halves)

    def part(self, body: int) -> Boxes:
        """Collision geometry of one body of the model and of what hangs on it."""
        mine = [body in self._ancestors[self.model.geom_bodyid[geom]] for geom in self._geoms]
        return self._boxes(self._geoms[np.array(mine)])

    def joint(self, name: str) -> Joint:
        """The joint of a fixture, or of the part of it that a region belongs to."""
        owner = self.env.object_sites_dict.get(name) or self.env.get_object(name)
        return Joint(self, self.model.joint(owner.joints[0]).id)

    def shut(self, place: str) -> bool:
        """Whether a place is inside something that opens, and is not open."""
        site = self.env.object_sites_dict.get(place)
        return bool(site is not None and site.joints) and not self.holds(["open", place])

    def articulation(self, name: str) -> dict[str, list[float]]:
        """Ranges of the joint's values that count as open, closed, on and off, by LIBERO's names for them."""
        site = self.env.object_sites_dict.get(name)
        owner = self.env.get_object(name if site is None else site.parent_name)
        return owner.object_properties["articulation"]

    # The goal.

    def goals(self) -> list[list[str]]:
        """The predicates that must hold together, such as ["on", "plate_1", "table_region"]."""
        return [list(goal) for goal in self.env.parsed_problem["goal_state"]]

    def holds(self, goal: list[str]) -> bool:
        """Whether one predicate holds now."""
        return bool(self.env._eval_predicate(goal))

    def region(self, goal: list[str]) -> tuple[np.ndarray, float, Callable[[np.ndarray], bool]]:
        """Where `goal` = [predicate, object, place] wants the object: centre (2,), reach [m], a judge of origins."""
        predicate, _, place = goal
        if place not in self.env.object_sites_dict:
            center = self.origin(place)
            return center[:2], 0.015, lambda origin: bool(origin[2] >= center[2])
        site = self.env.object_sites_dict[place]
        guests = [other[1] for other in self.goals() if other[0] in ("in", "on") and other[-1] == place]
        position = np.array(self.env.sim.data.get_site_xpos(place))
        matrix = np.array(self.env.sim.data.get_site_xmat(place))
        inside = site.in_box if predicate == "in" else site.under
        reach = float(np.sort(np.abs(matrix @ site.size))[1:].min())
        # If several belong there, each gets its share, the first the far one.
        share = (len(guests) - 1) / 2 - guests.index(goal[1])
        center = position[:2] + share * reach / max(1, len(guests) - 1) * np.array([1.0, 0.0])
        return center, min(reach, 0.08), lambda origin: bool(inside(position, matrix, origin))
