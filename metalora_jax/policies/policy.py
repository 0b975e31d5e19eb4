"""What a policy is to the rest of the package: three stages, sizes, and how it is fed, read and written.

A family of policies is two classes. `Policy` is the network, an NNX module that knows nothing of adapters. `Family` is
what surrounds it: files, tokenizer, pictures, and names. `registry` finds a family by the `type` in config.json.

What every program needs of a family is abstract. What only some need (pretraining, export, the benchmark) has a default
that raises a ValueError naming the method to implement.
"""

import abc
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, NoReturn, Protocol

import jax
import numpy as np
from flax import nnx
from tokenizers import Tokenizer

from metalora_jax.adapters.attach import Theta
from metalora_jax.adapters.placement import Placement
from metalora_jax.types import Array, Observation, PyTree, Sizes

Stage = Literal["observation", "features", "context"]
STAGES: tuple[Stage, ...] = ("observation", "features", "context")
"""What is known of a frame as it goes through a policy; the later, the more has been computed."""

Progress = Callable[[list], Iterable]
ExportDtype = Literal["float32", "base"]


class Config(Protocol):
    """Everything that fixes a policy's shapes and arithmetic: a frozen, hashable dataclass of plain values."""

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready dict of every field; part of a base's fingerprint."""
        ...


class Policy(nnx.Module, abc.ABC):
    """A flow-matching vision-language-action policy in three stages: encode -> condition -> velocity.

    The prefix (pictures, instruction and perhaps state) must not depend on x_t or t. A policy whose state enters the
    suffix carries it in the context that `condition` returns.
    """

    type: ClassVar[str]  # of its family
    frozen_below: ClassVar[Mapping[str, Stage]]
    """First part of a module path -> the last of STAGES that the maps below it cannot influence."""

    config: Any  # a Config

    @property
    @abc.abstractmethod
    def sizes(self) -> Sizes:
        """Widths that demonstrations are brought to."""

    @property
    @abc.abstractmethod
    def num_steps(self) -> int:
        """Euler steps of the sampler."""

    @abc.abstractmethod
    def encode(self, images: Array) -> jax.Array:
        """(B, C, H, W, 3) in [-1, 1] -> features (B, C, N, width); no other input reaches them."""

    @abc.abstractmethod
    def condition(self, features: Array, image_mask: Array, tokens: Array, token_mask: Array, state: Array) -> PyTree:
        """The prefix -> the context that the action expert reads. Batch comes first in every leaf of the context."""

    @abc.abstractmethod
    def velocity(self, context: Any, x_t: jax.Array, t: jax.Array) -> jax.Array:
        """Velocity of the flow at noisy actions x_t (B, T, D) and flow time t (B,); (B, T, D) float32."""

    def context(self, observation: Observation) -> PyTree:
        """`encode`, then `condition`: all that does not depend on the flow."""
        return self.condition(self.encode(observation.images), *observation[1:])

    @classmethod
    def stage_of(cls, paths: Iterable[str]) -> Stage:
        """The deepest of STAGES that no adapter on these module paths can influence; the frozen front ends there.

        Raises:
          ValueError: a path begins with a part that `frozen_below` does not name: it might influence any stage.
        """
        found = [STAGES[-1]]
        for path in paths:
            root = path.split("/")[0]
            if root not in cls.frozen_below:
                known = ", ".join(cls.frozen_below)
                raise ValueError(f"{path!r} is in no known part of a {cls.type} policy; its parts are: {known}")
            found.append(cls.frozen_below[root])
        return min(found, key=STAGES.index)


StatisticsSets = dict[str, dict[str, dict[str, np.ndarray]]]
"""Data set's name ("" where there is one only) -> "observation.state" or "action" -> "mean", "std", ... -> (width,)."""


class Normalization(NamedTuple):
    """How a public policy uses its statistics."""

    modes: Mapping[str, str]  # "STATE" and "ACTION" -> a mode, see `normalize.shift_and_scale`
    source: str  # the files that they stand in; "" where there are none
    said: tuple[str, ...] = ()  # what contradicts the source without being used, a sentence each
    wrong: tuple[str, ...] = ()  # why they cannot be used, a sentence each
    widths: Mapping[str, int] = {}  # "STATE" and "ACTION" -> dimensions in config.json
    eps: float = 1e-8  # what the policy was trained with, added to standard deviations
    relative: tuple[bool, ...] | None = None  # for each dimension of an action, whether it is predicted minus the state


class Checkpoint(NamedTuple):
    """What a policy directory holds."""

    model: Policy
    tokenizer: Tokenizer | None
    statistics: StatisticsSets  # those of a public policy, by data set; {} for a base directory
    lerobot_config: dict[str, Any] | None  # config.json of a lerobot policy, as it is
    normalization: Normalization | None = None  # of a public policy
    cameras: tuple[str, ...] | None = None  # names that the robot has for its cameras, in order; None where not said
    adapter: tuple[Placement, Theta] | None = None  # on the model, where the directory holds one beside its weights


class Operations(NamedTuple):
    """Floating-point operations of one frame, forward, by stage; the adapters themselves are not counted."""

    encode: float
    condition: float
    velocity: float  # of one evaluation
    condition_attention: float  # part of `condition`: the products of activations with activations
    velocity_attention: float  # part of `velocity`

    @property
    def condition_backward(self) -> float:
        """Gradients of the activations: as much as the linear maps, twice the attention; frozen weights need none."""
        return self.condition + self.condition_attention

    @property
    def velocity_backward(self) -> float:
        """The same for the velocity."""
        return self.velocity + self.velocity_attention


class Family(abc.ABC):
    """How policies of one type are read, written and fed."""

    type: ClassVar[str]

    @abc.abstractmethod
    def load(self, directory: Path, tokenizer: str | Path | None, progress: Progress, **overrides: Any) -> Checkpoint:
        """Reads a policy directory.

        Args:
          directory: what `save` wrote, or a public checkpoint of this type.
          tokenizer: file or directory of the tokenizer, where it is not with the policy.
          progress: goes over the parameters of a large policy, and may show how far it is.
          overrides: of the config, such as param_dtype="bfloat16".

        Raises:
          ValueError: a file is missing or damaged, or weights and config do not fit each other; the message names it.
        """

    @abc.abstractmethod
    def save(self, directory: Path, model: Any, tokenizer: Tokenizer) -> None:
        """Writes config.json (with `type`), weights and tokenizer, so that `load` gives them back bit by bit."""

    @abc.abstractmethod
    def prepare_images(self, images: np.ndarray, size: int) -> np.ndarray:
        """Pictures (..., H, W, 3) uint8 -> (..., size, size, 3) float32 in [-1, 1], as the policy was trained."""

    def prepare_images_for(self, config: Any, images: np.ndarray, size: int) -> np.ndarray:
        """`prepare_images`, where it is the config that says how, and not the type alone."""
        return self.prepare_images(images, size)

    @abc.abstractmethod
    def tokenize(
        self, config: Any, tokenizer: Tokenizer, instruction: str, states: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The prompts of n frames: token ids (n, L) int32 and their mask (n, L) bool.

        Args:
          config: of the policy.
          tokenizer: the policy's.
          instruction: what the robot is told.
          states: (n, state_dim) float32, normalised, for policies whose prompt holds the state.

        Raises:
          ValueError: the prompt is too long.
        """

    def excess(self, config: Any, tokenizer: Tokenizer, instruction: str, states: np.ndarray) -> np.ndarray:
        """By how many tokens `tokenize` cuts the prompts of n frames, (n,) int; where it refuses long ones, none."""
        return np.zeros(len(states), int)

    @abc.abstractmethod
    def preset(self, name: str, *, rank: int | None = None, b_std: float = 0.0) -> Placement:
        """A placement of adapters by name, see `presets`; ValueError lists the names."""

    @property
    @abc.abstractmethod
    def presets(self) -> tuple[str, ...]:
        """The names that `preset` takes; the first is what programs use unless told otherwise."""

    @abc.abstractmethod
    def module_names(self, config: Any) -> Mapping[str, tuple[tuple[str, ...], int | None]]:
        """PEFT's name of every linear map -> its path here, and its layer in a stack or None."""

    @property
    def modes(self) -> Mapping[str, str]:
        """How statistics of new data normalise: see `modes` of `data.normalize.compute`."""
        return {}

    def without_effect(self, paths: Iterable[str]) -> list[str]:
        """Those of the adapted maps that no output depends on, whatever the input."""
        return []

    def create(self, fields: Mapping[str, Any], rngs: nnx.Rngs) -> Policy:
        """A policy with fresh weights, for pretraining. Optional.

        Args:
          fields: of the config, those that differ from the family's defaults: a recipe's `model` without its `type`.
          rngs: of the weights.

        Raises:
          TypeError: a field is unknown.
          ValueError: the fields do not fit each other; or the family does not implement this.
        """
        self._lacks("pretrained from scratch", "create")

    def prepare_float_images(self, images: jax.Array, size: int) -> jax.Array:
        """`prepare_images` as a function that JAX can trace, for pretraining, which augments on the device. Optional.

        Args:
          images: (..., H, W, 3) float32 in [0, 1].
          size: side of the result [px].

        Returns:
          (..., size, size, 3) float32 in [-1, 1].

        Raises:
          ValueError: the family does not implement this.
        """
        self._lacks("pretrained from scratch", "prepare_float_images")

    def export_merged(
        self,
        directory: Path,
        model: Any,
        source: Path,
        statistics: Mapping[str, np.ndarray],
        dtype: ExportDtype,
        cameras: Sequence[str] | None = None,
        data_set: str = "",
    ) -> None:
        """Writes a policy in the public format of its type, one that `load` reads. Optional.

        Args:
          directory: made here, as a whole or not at all; must not exist.
          model: the policy, with its adapters folded in (`adapters.fuse`).
          source: the public checkpoint that the base was made from.
          statistics: that the policy normalises by: the keys "observation.state.mean", "observation.state.std",
            "action.mean" and "action.std", each (width,).
          dtype: "float32", or "base" for each tensor in the type that it has in `source`.
          cameras: what the robot calls its cameras, in the policy's order; None keeps the names of `source`. Of no
            account to a format that does not name them.
          data_set: the name that the statistics go by, in a format that has several (openpi's asset id); "" is that of
            `source`.

        Raises:
          ValueError: `directory` exists; `source` is of another format; or the family does not implement this.
        """
        self._lacks("exported", "export_merged")

    cameras: ClassVar[tuple[str, ...]] = ()
    """What public policies of this type call their cameras, in order, where all call them the same."""

    def export_lora(
        self,
        directory: Path,
        placement: Placement,
        theta: Theta,
        model: Any,
        source: Path,
        statistics: Mapping[str, np.ndarray],
        dtype: ExportDtype,
        data_set: str = "",
    ) -> None:
        """Writes a policy with the adapter beside its weights, in a public format that has both. Optional.

        `load` gives the adapter back as `Checkpoint.adapter`.

        Args:
          directory: made here, as a whole or not at all; must not exist.
          placement, theta: the adapter.
          model: the base.
          source, statistics, dtype, data_set: see `export_merged`; the adapter itself stays float32.

        Raises:
          ValueError: as for `export_merged`; or the format has no place for the adapter, which names what does not fit.
        """
        self._lacks("exported", "export_lora")

    served_dtype: ClassVar[str | None] = None
    """What the public program that runs an export rounds weights to, whatever they are stored in; None keeps them."""

    def served_as(self, directory: Path) -> str | None:
        """The same of one export, in `directory`."""
        return self.served_dtype

    relative_by_config: ClassVar[bool] = False
    """Whether the public program that runs an export is told by its own config which actions are relative."""

    def untold(self, config: Any) -> Mapping[str, Any]:
        """Fields of the config that the public format does not hold: what `load` is told to read an export back."""
        return {}

    def serve_command(self, directory: Path, config: Any) -> str | None:
        """What to type to run what `export_merged` wrote, as lines for people; None where that is lerobot."""
        return None

    def export_peft(
        self,
        directory: Path,
        placement: Placement,
        theta: Theta,
        model: Any,
        source_name: str,
        source: Path,
        statistics: Mapping[str, np.ndarray],
        manifest: Mapping[str, Any] | None,
        cameras: Sequence[str] | None = None,
    ) -> None:
        """Writes an adapter in PEFT's format, with what the policy's public format asks beside it. Optional.

        Args:
          directory: made here, as a whole or not at all; must not exist.
          placement, theta: the adapter.
          model: the base, for its names.
          source_name: what the reader is to load the base by: a directory, or its name on the hub.
          source: its directory here.
          statistics: see `export_merged`.
          manifest: JSON that travels along in the header of the weights, where PEFT does not look; None for an adapter
            that has none.
          cameras: see `export_merged`.

        Raises:
          ValueError: as for `export_merged`; or the adapter is more than plain LoRA.
        """
        self._lacks("exported", "export_peft")

    def operations(self, config: Any, cameras: int) -> Operations:
        """What one frame of that many cameras costs at the least, for the benchmark's floor. Optional.

        Raises:
          ValueError: the family does not implement this.
        """
        self._lacks("benchmarked", "operations")

    def _lacks(self, done: str, method: str) -> NoReturn:
        raise ValueError(f"a {self.type} policy cannot be {done}: its family has no {method}; see docs/add_policy.md")
