"""Meta-World tasks as a robot would see them: two 64-pixel cameras, four numbers of proprioception, one instruction.

The simulator is the PyPI package `metaworld` (Yu et al. 2019, arXiv:1910.10897; MuJoCo). The first camera is lerobot's
Meta-World setting (`corner2` moved to (0.75, 0.075, 0.7), turned upright); the second looks straight down.
"""

import difflib
import functools
import warnings
import zlib
from collections import deque
from collections.abc import Callable, Sequence

import numpy as np

from metalora_jax.envs import gl
from metalora_jax.envs.conditions import Condition, execute
from metalora_jax.envs.shifted_model import ShiftedModel
from metalora_jax.envs.world import Frame, Step, World, check_shift

INSTRUCTIONS = {
    "button-press": "press the red button on the yellow box from the front",
    "button-press-topdown": "press the red button from above",
    "button-press-wall": "reach over the wall and press the red button",
    "coffee-button": "press the button on the coffee machine",
    "dial-turn": "turn the dial",
    "door-close": "close the door",
    "door-lock": "lock the door by turning its lock",
    "door-open": "open the door",
    "door-unlock": "unlock the door by turning its lock",
    "drawer-close": "push the drawer shut",
    "drawer-open": "pull the drawer open",
    "faucet-close": "turn the faucet off",
    "faucet-open": "turn the faucet on",
    "handle-press": "press the handle down",
    "handle-press-side": "press the handle down from the side",
    "handle-pull": "pull the handle up",
    "handle-pull-side": "pull the handle up from the side",
    "lever-pull": "pull the lever up",
    "plate-slide": "slide the plate into the cabinet",
    "plate-slide-back": "slide the plate out of the cabinet",
    "plate-slide-back-side": "slide the plate sideways out of the cabinet",
    "plate-slide-side": "slide the plate sideways into the cabinet",
    "reach": "reach the goal",
    "push": "push the puck to the goal",
    "soccer": "kick the ball into the goal",
    "stick-push": "push the thermos with the stick",
    "sweep-into": "sweep the puck into the hole",
    "window-close": "slide the window shut",
    "window-open": "slide the window open",
}
CAMERAS = {"agentview": "corner2", "topview": "topview"}  # our name -> the model's camera
_LEROBOT_EYE = (0.75, 0.075, 0.7)  # [m], lerobot's place for corner2
STATE_DIM = 4
ACTION_DIM = 4


def instruction(task: str) -> str:
    """The instruction; raises ValueError, naming the closest tasks, if there is no such task."""
    if task not in INSTRUCTIONS:
        near = difflib.get_close_matches(task, INSTRUCTIONS, n=3, cutoff=0.4)
        raise ValueError(
            f"no Meta-World task named {task!r}; " + (f"near: {', '.join(near)}" if near else "see INSTRUCTIONS")
        )
    return INSTRUCTIONS[task]


def episode_start(task: str, draw: int, number: int) -> int:
    """The seed of an episode for evaluation: never one that demonstrations were recorded from.

    It differs between tasks: one seed places the objects of every task at the same fraction of their range, and
    episodes that share it are not independent.
    """
    return 1_000_000 + 100_000 * (zlib.crc32(task.encode()) % 1000) + 1000 * draw + number


class MetaWorld:
    """One task, see `world.Simulator`. A start is the seed that objects and goals are drawn from.

    The state is the hand's x, y, z [m] and the gripper's opening [0, 1]; images are upright.
    """

    def __init__(self, task: str, cameras: Sequence[str] = tuple(CAMERAS), image_size: int = 64):
        """Builds the simulator (0.3 s) with a renderer for `cameras` at `image_size` [px]."""
        if unknown := set(cameras) - set(CAMERAS):
            raise ValueError(f"no cameras named {sorted(unknown)}; choose from {', '.join(CAMERAS)}")
        gl.choose()
        import mujoco
        from metaworld.env_dict import ALL_V3_ENVIRONMENTS

        self.task = task
        self.instruction = instruction(task)
        self._env = ALL_V3_ENVIRONMENTS[f"{task}-v3"]()
        self._env._freeze_rand_vec = False
        self._env.seeded_rand_vec = True
        self._env._set_task_called = True
        # The scripted experts read the goal from the full state. The observation space was cached when the goal was
        # still hidden, and would clip it to zero: drop the cache.
        self._env._partially_observable = False
        self._env.__dict__.pop("sawyer_observation_space", None)
        model = self._env.model
        model.vis.quality.shadowsize = 0  # shadows and multisampling cost 10x and nothing here needs them
        model.vis.quality.offsamples = 0
        model.cam_pos[model.camera("corner2").id] = _LEROBOT_EYE
        self._upside_down = [CAMERAS[name] == "corner2" for name in cameras]
        self._cameras = [model.camera(CAMERAS[name]).id for name in cameras]
        self._shifted = ShiftedModel(model, dict(zip(cameras, self._cameras, strict=True)))
        self._flags = (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION)
        self._make_renderer = functools.partial(gl.renderer, model, image_size)
        self._renderer = self._make_renderer()
        self._condition = Condition()
        self._queue: deque[np.ndarray] = deque()
        self._full_state: np.ndarray | None = None

    def __enter__(self) -> "MetaWorld":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Frees the renderer's GL context."""
        self._renderer.close()
        self._env.close()

    def reset(self, start: int, condition: Condition = Condition()) -> None:  # noqa: B008 (frozen)
        """See `world.Simulator`."""
        check_shift(condition, "metaworld", WORLD)
        self._condition = condition
        self._queue = deque([np.zeros(ACTION_DIM)] * condition.latency)
        if self._shifted.shift(condition):
            self._renderer.close()
            self._renderer = self._make_renderer()
        self._env.seed(start)
        self._full_state, _ = self._env.reset()

    @property
    def full_state(self) -> np.ndarray:
        """The simulator's whole observation (39,), goal included: for the scripted experts, never for a policy."""
        if self._full_state is None:
            raise RuntimeError(f"{self.task} has no state yet; call reset(start) first")
        return self._full_state

    def observe(self) -> Frame:
        """Renders the cameras (about 6 ms each). Call it only if the policy needs them: physics alone takes 0.2 ms."""
        state = self.full_state[:STATE_DIM].astype(np.float32)
        images = []
        for camera, upside_down in zip(self._cameras, self._upside_down, strict=True):
            self._renderer.update_scene(self._env.data, camera=camera)
            for flag in self._flags:
                self._renderer.scene.flags[flag] = 0
            image = self._renderer.render()
            images.append(image[::-1, ::-1] if upside_down else image)
        return Frame(np.stack(images), state)

    def step(self, command: np.ndarray) -> Step:
        """Sends one command (4,): x, y, z displacement and gripper effort, nominally in [-1, 1].

        Raises:
          ValueError: if the command has the wrong shape or is not finite.
        """
        command = np.asarray(command, np.float64)
        if command.shape != (ACTION_DIM,) or not np.isfinite(command).all():
            raise ValueError(f"command {command} for {self.task} must be {ACTION_DIM} finite numbers")
        self._queue.append(execute(command, self._condition))
        action = self._queue.popleft()
        self._full_state, reward, _, _, info = self._env.step(action.astype(np.float32))
        # The simulator's own step limit (500) is never reached: episodes are capped well below by the caller.
        return Step(float(reward), bool(info["success"]))

    def expert(self) -> Callable[[], np.ndarray]:
        """Meta-World's own scripted policy for the task."""
        from metaworld.policies import ENV_POLICY_MAP
        from metaworld.policies.policy import Policy

        make: Callable[[], Policy] = ENV_POLICY_MAP[f"{self.task}-v3"]
        policy = make()

        def act() -> np.ndarray:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # it warns that it asks for more than 1, which is then clipped
                return np.clip(policy.get_action(self.full_state), -1.0, 1.0)

        return act


def tasks() -> tuple[str, ...]:
    """All tasks that have an instruction."""
    return tuple(INSTRUCTIONS)


def demo_steps(task: str) -> int:
    """The step limit, the same for all tasks: the experts need less."""
    return 200


def suite(task: str) -> str:
    """The suite, which is the same for all tasks."""
    return "metaworld"


WORLD = World(
    tuple(CAMERAS),
    STATE_DIM,
    ACTION_DIM,
    tasks,
    instruction,
    MetaWorld,
    episode_start,
    demo_steps,
    suite,
    prepare=gl.choose,
)
