"""The SO-101, LeRobot's own arm, over a table with cubes and markers: absolute joint targets, two cameras, MuJoCo.

State and action are what LeRobot reads from and sends to the arm: `JOINTS`, in degrees from the middle of the range,
the gripper from 0 (closed) to 100. See `model` for where the arm comes from, and `tasks` for what it can be told.
"""

import functools
import zlib
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from metalora_jax.envs import gl
from metalora_jax.envs.conditions import Condition, execute_joints, read_joints
from metalora_jax.envs.shifted_model import ShiftedModel
from metalora_jax.envs.so101 import expert, model
from metalora_jax.envs.so101.kinematics import ARM, Arm
from metalora_jax.envs.so101.tasks import CUBES, MARKERS, SIDE, TASKS, Scene, instruction, solved
from metalora_jax.envs.world import Frame, Step, View, World, check_shift

JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
# Of each target: degrees, and 0 to 100. A test compares them with the model.
LIMITS = ((-110.0, 110.0), (-100.0, 100.0), (-96.83, 96.83), (-95.0, 95.0), (-157.21, 162.79), (0.0, 100.0))
CAMERAS = ("front", "wrist")
RATES = (10, 30)  # [Hz]
HOME = (0.0, -60.0, 40.0, 90.0, 0.0, 30.0)  # where an episode begins
_JITTER = 3.0  # [degrees], of every joint at the start
_NEAR, _FAR, _FAR_MARKER = 0.175, 0.25, 0.265  # [m] from the arm's base to what lies on the table
_ASIDE = np.radians(40)  # from straight ahead
_TURNED = np.radians(15)  # of a cube, from facing the arm
THINGS = (*(f"{colour} cube" for colour in CUBES), *(f"{colour} marker" for colour in MARKERS))
_APART = {(True, True): 0.08, (True, False): 0.072, (False, False): 0.08}  # [m] between centres: cubes, markers


class SO101:
    """One task, see `world.Simulator`. A start is the seed that all places are drawn from, whatever the task."""

    def __init__(self, task: str, cameras: Sequence[str] = CAMERAS, image_size: int = 64, fps: int = 10):
        """Reads the model, built once and then cached, with a renderer for `cameras` at `image_size` [px].

        Args:
          task: one of `tasks.TASKS`.
          cameras: some of CAMERAS.
          image_size: [px].
          fps: control steps in a second, one of RATES.
        """
        if unknown := set(cameras) - set(CAMERAS):
            raise ValueError(f"no cameras named {sorted(unknown)}; choose from {', '.join(CAMERAS)}")
        if fps not in RATES:
            raise ValueError(f"fps = {fps} is no rate of the SO-101's world; choose from {', '.join(map(str, RATES))}")
        self.task, self.instruction, self._task = task, instruction(task), TASKS.get(task)
        gl.choose()
        import mujoco

        self._mujoco = mujoco
        self._model = model.load()
        self._data = mujoco.MjData(self._model)
        self._arm = Arm(self._model)
        self._fps, self._substeps = fps, round(1 / (fps * model.TIMESTEP))
        low, high = self._model.jnt_range[ARM]
        self._scale = np.append(np.full(ARM, np.degrees(1.0)), 100 / (high - low))
        self._zero = np.append(np.zeros(ARM), low)
        self._cameras = list(cameras)
        self._shifted = ShiftedModel(self._model, {name: self._model.camera(name).id for name in cameras})
        self._flags = (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION)
        self._make_renderer = functools.partial(gl.renderer, self._model, image_size)
        self._renderer = self._make_renderer()
        self._hand = {self._model.body(name).id for name in ("gripper", "moving_jaw_so101_v1")}
        self._condition = Condition()
        self._queue: deque[np.ndarray] = deque()
        self._start: np.ndarray | None = None  # where the task's cube lay

    def __enter__(self) -> "SO101":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Frees the renderer's GL context."""
        self._renderer.close()

    def reset(self, start: int, condition: Condition = Condition()) -> None:  # noqa: B008 (frozen)
        """See `world.Simulator`."""
        check_shift(condition, "so101", WORLD)
        self._condition = condition
        if self._shifted.shift(condition):
            self._renderer.close()
            self._renderer = self._make_renderer()
        data, rng = self._data, np.random.default_rng([start, 101])
        self._mujoco.mj_resetData(self._model, data)
        self._lay(rng)
        home = np.array(HOME) + rng.uniform(-_JITTER, _JITTER, len(JOINTS))
        data.qpos[: len(JOINTS)] = data.ctrl[:] = self._radians(home)
        self._mujoco.mj_forward(self._model, data)
        data.ctrl[:ARM] += data.qfrc_bias[:ARM] / self._stiffness
        self._queue = deque([data.ctrl.copy()] * condition.latency)
        self._start = self._cube().copy()

    def observe(self) -> Frame:
        """Renders the cameras."""
        self._begun()
        return self._frame()

    def _frame(self) -> Frame:
        images = []
        for camera in self._cameras:
            self._renderer.update_scene(self._data, camera=camera)
            for flag in self._flags:
                self._renderer.scene.flags[flag] = 0
            images.append(self._renderer.render())
        physical = (self._data.qpos[: len(JOINTS)] - self._zero) * self._scale
        return Frame(np.stack(images), read_joints(physical, self._condition).astype(np.float32))

    def view(self, start: int, state: np.ndarray) -> View:
        """See `world.Pointed`; what hides behind the arm counts as in view."""
        self.reset(start)
        self._data.qpos[: len(JOINTS)] = self._radians(np.clip(state, *np.transpose(LIMITS)))
        self._mujoco.mj_forward(self._model, self._data)
        self._start = None
        places = np.stack([self._data.body(name).xpos for name in THINGS])
        points = [_projected(self._model.camera(name), self._data.camera(name), places) for name in self._cameras]
        return View(self._frame(), np.stack(points))

    def step(self, command: np.ndarray) -> Step:
        """Sends joint targets (6,): degrees, then the gripper from 0 to 100; the servos take what their range allows.

        Raises:
          ValueError: if the command has the wrong shape or is not finite.
        """
        start = self._begun()
        command = np.asarray(command, np.float64)
        if command.shape != (len(JOINTS),) or not np.isfinite(command).all():
            raise ValueError(f"command {command} for {self.task} must be {len(JOINTS)} finite numbers")
        executed = np.clip(execute_joints(command, self._condition), *np.transpose(LIMITS))
        self._queue.append(self._radians(executed))
        self._data.ctrl[:] = self._queue.popleft()
        self._mujoco.mj_step(self._model, self._data, self._substeps)
        assert self._task is not None
        success = solved(self._task, self._scene(start))
        return Step(float(success), success)

    def expert(self) -> Callable[[], np.ndarray]:
        """See `expert`; it knows nothing of the condition, and its targets are the arm's own."""
        self._begun()
        assert self._task is not None
        data = self._data
        w, x, y, z = data.body(f"{self._task.cube} cube").xquat
        turned = float(np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z)))
        jaw = self._arm.pose(data.qpos[:ARM], expert.BETWEEN).jaw
        path = expert.ways(self._task, self._cube(), turned, self._marker(), jaw)
        act = expert.follow(self._arm, data, self._stiffness, path, self._fps)

        def said() -> np.ndarray:
            target = act()
            return np.clip(np.append(np.degrees(target[:ARM]), target[ARM]), *np.transpose(LIMITS))

        return said

    @property
    def _stiffness(self) -> float:
        return float(self._model.actuator_gainprm[0, 0])  # [Nm/rad]

    def _begun(self) -> np.ndarray:
        if self._start is None:
            raise RuntimeError(f"{self.task} has no state yet; call reset(start) first")
        return self._start

    def _radians(self, said: np.ndarray) -> np.ndarray:
        return said / self._scale + self._zero

    def _cube(self) -> np.ndarray:
        assert self._task is not None
        return self._data.body(f"{self._task.cube} cube").xpos

    def _marker(self) -> np.ndarray | None:
        assert self._task is not None
        return None if self._task.marker is None else self._data.body(f"{self._task.marker} marker").xpos

    def _scene(self, start: np.ndarray) -> Scene:
        assert self._task is not None
        data, cube = self._data, self._model.body(f"{self._task.cube} cube")
        speed = float(np.linalg.norm(data.qvel[cube.dofadr[0] : cube.dofadr[0] + 3]))
        pairs = self._model.geom_bodyid[data.contact.geom[: data.ncon]]
        touched = any(cube.id in pair and not self._hand.isdisjoint(pair) for pair in pairs.tolist())
        return Scene(self._cube(), start, speed, self._marker(), touched)

    def _lay(self, rng: np.random.Generator) -> None:
        """Puts cubes and markers on the table."""
        loose = [name.endswith("cube") for name in THINGS]
        for name, is_loose, (place, turned) in zip(THINGS, loose, _places(loose, rng), strict=True):
            body = self._model.body(name)
            attitude = [np.cos(turned / 2), 0.0, 0.0, np.sin(turned / 2)]
            if is_loose:
                at = self._model.jnt_qposadr[body.jntadr[0]]
                self._data.qpos[at : at + 7] = [*place, SIDE / 2, *attitude]
            else:
                self._data.mocap_pos[body.mocapid[0]] = [*place, 0.0005]
                self._data.mocap_quat[body.mocapid[0]] = attitude


def _projected(camera: Any, pose: Any, places: np.ndarray) -> np.ndarray:
    """Where `places` (n, 3) [m] are in the picture of a camera, see `View.points`: (n, 2).

    Args:
      camera, pose: the camera's views of the `mujoco.MjModel` and of the `mujoco.MjData`.
      places: in the world's frame.
    """
    right, up, back = ((places - pose.xpos) @ pose.xmat.reshape(3, 3)).T
    ahead = np.where(back < 0, -back, np.nan)
    points = np.stack([right, -up], axis=-1) / ahead[:, None] / np.tan(np.radians(camera.fovy[0]) / 2)
    return np.where((np.abs(points) <= 1).all(axis=-1, keepdims=True), points, np.nan).astype(np.float32)


def _places(loose: Sequence[bool], rng: np.random.Generator) -> list[tuple[np.ndarray, float]]:
    """A place (2,) [m] and a turn [rad] for each thing, all drawn again until no two are too near."""
    while True:
        found: list[tuple[np.ndarray, float]] = []
        for cube in loose:
            gaps = [_APART[max(cube, other), min(cube, other)] for other in loose[: len(found)]]
            for _ in range(20):
                away, aside = rng.uniform(_NEAR, _FAR if cube else _FAR_MARKER), rng.uniform(-_ASIDE, _ASIDE)
                place = away * np.array([np.cos(aside), np.sin(aside)])
                if all(np.linalg.norm(place - other) > gap for (other, _), gap in zip(found, gaps, strict=True)):
                    found.append((place, aside + rng.uniform(-_TURNED, _TURNED)))
                    break
            else:
                break  # no room is left
        if len(found) == len(loose):
            return found


def tasks() -> tuple[str, ...]:
    """All tasks."""
    return tuple(TASKS)


def episode_start(task: str, draw: int, number: int) -> int:
    """The seed of an episode for evaluation: never one that demonstrations were recorded from."""
    return 1_000_000 + 100_000 * (zlib.crc32(task.encode()) % 1000) + 1000 * draw + number


def demo_steps(task: str) -> int:
    """The step limit at 30 Hz; the expert needs less."""
    return 400


def suite(task: str) -> str:
    """lift, place or push: what step limits may differ by."""
    return task.partition("-")[0]


WORLD = World(
    CAMERAS,
    len(JOINTS),
    len(JOINTS),
    tasks,
    instruction,
    SO101,
    episode_start,
    demo_steps,
    suite,
    joints=JOINTS,
    limits=LIMITS,
    prepare=gl.choose,
    things=THINGS,
)
