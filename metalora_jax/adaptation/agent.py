"""One way to act: from camera frames and an instruction to a chunk of commands in the robot's own units."""

from typing import NamedTuple

import jax
import numpy as np
from absl import logging

from metalora_jax import adapters, trees
from metalora_jax.adaptation.base import Base
from metalora_jax.adaptation.identification import ActionMap
from metalora_jax.adaptation.learner import Learner, learner
from metalora_jax.adapters import Theta
from metalora_jax.policies import stages
from metalora_jax.types import Observation
from metalora_jax.words import plural


class Executing(NamedTuple):
    """The commands that a robot executes while the next chunk is computed: real-time chunking, see `flow.guided`."""

    commands: np.ndarray  # (n, action_dim) in the robot's units, from the step at which the next chunk begins; n >= 1
    weights: np.ndarray  # (n,) in [0, 1]: 1 on those that will be executed anyway, falling to 0 where it may deviate
    limit: float = 10.0  # the strongest pull


class Agent:
    """A base, perhaps with an adapter or a map of its commands, that acts.

        agent = Agent(base, start.learner)
        chunk = agent.act(images, state, "open the drawer", jax.random.key(0))

    The policy is compiled once for each shape of the inputs and each placement; agents that differ in theta alone share
    the program.

    Adapters with `only_for` are used under these instructions. Under any other the agent acts as the base alone, by the
    same program, and so bit by bit: what the adapters learned costs nothing there.
    """

    def __init__(
        self,
        base: Base,
        adapted: Learner | None = None,
        theta: Theta | None = None,
        action_map: ActionMap | None = None,
        *,
        fuse: bool = False,
    ):
        """Puts a policy together.

        Args:
          base: the frozen policy.
          adapted: the adapters on it; None is the base alone.
          theta: their parameters; None takes those of `adapted`.
          action_map: what is commanded in place of what the policy commands; None is the same.
          fuse: fold the adapters into the base's weights, which saves their arithmetic and costs a copy of the weights.
            Exact up to rounding in float32.

        Raises:
          ValueError: `adapted` is on another base; theta or `action_map` does not fit it; or `fuse` is wanted of
            adapters that depend on their input, or of weights that are not float32, which would round them away.
        """
        self._base = base
        self._plain = learner(base, (), jax.random.key(0))
        self.fuse = fuse
        self._cut: set[str] = set()  # instructions that were said to be cut
        self.swap(adapted, theta, action_map)

    def swap(self, adapted: Learner | None, theta: Theta | None = None, action_map: ActionMap | None = None) -> None:
        """Takes another adapter; nothing is compiled where its placement has been used before. Arguments as above."""
        width = len(self._base.statistics.action_mean)
        if action_map is not None and action_map.matrix.shape != (width, width):
            raise ValueError(f"the map is of {len(action_map.matrix)} numbers, a command of this base has {width}")
        self._action_map = action_map
        if adapted is None:
            if theta is not None:
                raise ValueError("theta is given without the adapters that it belongs to; pass `adapted`, too")
            self._learner = self._plain
            return
        adapted.check_base(self._base)
        theta = jax.tree.map(jax.numpy.asarray, adapted.theta if theta is None else theta)
        trees.check_same(theta, adapted.theta, "theta")
        if not self.fuse:
            self._learner = adapted.replace(theta=theta)
            return
        if stored := {leaf.dtype.name for leaf in jax.tree.leaves(self._plain.phi)} - {"float32"}:
            raise ValueError(f"folding adapters into {min(stored)} weights would round them away; use fuse=False")
        phi = adapters.split(adapters.fuse(adapted.model(theta))).phi
        self._learner = self._plain.replace(phi=phi, only_for=adapted.only_for)

    @property
    def only_for(self) -> tuple[str, ...] | None:
        """The instructions under which the adapters are used; None is all."""
        return self._learner.only_for

    def act(
        self,
        images: np.ndarray,
        state: np.ndarray,
        instruction: str,
        key: jax.Array,
        executing: Executing | None = None,
    ) -> np.ndarray:
        """Chunks of commands for B frames.

        Args:
          images: (B, C, H, W, 3) uint8, cameras in the order of the base's training; or (C, H, W, 3) of one frame.
          state: (B, state_dim) in the robot's units; or (state_dim,).
          instruction: what the robot is told.
          key: of the flow's noise.
          executing: of every frame; what the chunk is to go on from. None is nothing.

        Returns:
          (B, chunk, action_dim) in the robot's units; (chunk, action_dim) for one frame.

        Raises:
          ValueError: see `Preprocessor.observe`; `executing` is of other widths, or given where commands are mapped; or
            the commands are not finite.
        """
        if executing is not None and self._action_map is not None:
            raise ValueError("mapped commands cannot be gone on from: the policy plans in its own; leave out executing")
        single = np.ndim(images) == 4
        if single:
            images, state = np.asarray(images)[None], np.asarray(state)[None]
        adapted, action_map = self._learner, self._action_map
        if not adapted.applies(instruction):
            adapted, action_map = self._plain, None
        if action_map is not None and action_map.reading is not None:
            state = action_map.reading(np.asarray(state))
        observation = self._base.preprocessor.observe(images, state, instruction)
        self._say_cut(instruction, np.asarray(observation.state))
        previous = None if executing is None else self._previous(executing, state)
        adapted = adapted.replace(only_for=None)  # one program, whatever they are for
        chunk = _sample(adapted, observation, key, previous)
        commands = self._base.preprocessor.commands(np.asarray(chunk), state)
        if not np.isfinite(commands).all():
            raise ValueError("the commands are not finite: the adapter's training diverged, or the base is damaged")
        if action_map is not None:
            commands = action_map(commands)
        return commands[0] if single else commands

    def sample(self, observation: Observation, key: jax.Array) -> jax.Array:
        """As `act`, for frames that are prepared already, without undoing the normalisation or mapping commands.

        Args:
          observation: B frames, as the base's preprocessor gives them.
          key: of the flow's noise.

        Returns:
          (B, chunk, max_action_dim), normalised.

        Raises:
          ValueError: the adapters are for some instructions alone, which prepared frames do not tell.
        """
        if self.only_for is not None:
            raise ValueError(
                f"the adapter is only for {' or '.join(map(repr, self.only_for))}; call act, which is told"
            )
        return _sample(self._learner, observation, key, None)

    def _say_cut(self, instruction: str, states: np.ndarray) -> None:
        """Warns of a prompt that is cut, once for each instruction."""
        if instruction in self._cut:
            return
        if most := int(self._base.preprocessor.cut(instruction, states).max(initial=0)):
            self._cut.add(instruction)
            logging.warning("the prompt of %r is %s too long and is cut at the end", instruction, plural(most, "token"))

    def _previous(self, executing: Executing, state: np.ndarray) -> stages.Previous:
        """As the sampler takes it: one shape whatever is left, so that nothing is compiled anew.

        Relative actions are held against the states (B, state_dim) that are seen now, as those of the new chunk are.
        """
        sizes, statistics = self._base.sizes, self._base.statistics
        left, weights = np.asarray(executing.commands), np.asarray(executing.weights)
        if left.shape != (len(weights), len(statistics.action_mean)):
            raise ValueError(
                f"the commands that are executed have shape {left.shape}, expected ({len(weights)}, "
                f"{len(statistics.action_mean)}): a row for each weight"
            )
        kept = min(len(left), sizes.chunk)
        actions = np.zeros((len(state), sizes.chunk, sizes.action), np.float32)
        actions[:, :kept] = self._base.preprocessor.labels(left[None, :kept], state)
        padded = np.zeros(sizes.chunk, np.float32)
        padded[:kept] = weights[:kept]
        return stages.Previous(actions, padded, float(executing.limit))


@jax.jit
def _sample(adapted: Learner, observation: Observation, key: jax.Array, previous: stages.Previous | None) -> jax.Array:
    model = adapted.model()
    sizes = model.sizes
    noise = jax.random.normal(key, (observation.state.shape[0], sizes.chunk, sizes.action))
    return stages.sample(model, observation, noise, previous)
