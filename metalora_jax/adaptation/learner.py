"""A base with adapters on it, as the pure functions that training, adaptation and control need."""

import dataclasses
from functools import partial
from typing import cast

import jax
import jax.numpy as jnp

from metalora_jax import adapters
from metalora_jax.adaptation.base import Base
from metalora_jax.adapters import Graph, Placement, Theta
from metalora_jax.data.text import same
from metalora_jax.meta import LossFn
from metalora_jax.policies import stages
from metalora_jax.policies.policy import Policy, Stage
from metalora_jax.types import Batch, PyTree


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("theta", "phi"),
    meta_fields=("graph", "stage", "action_dim", "base", "only_for"),
)
@dataclasses.dataclass(frozen=True)
class Learner:
    """What every method starts from: a pytree of theta and phi, which passes through jit, vmap and sharding whole."""

    graph: Graph  # static
    theta: Theta  # a start
    phi: PyTree  # frozen
    stage: Stage  # static; the frozen front ends here
    action_dim: int  # static; the robot's own
    base: str  # static; fingerprint of the base that phi is of, with its statistics
    only_for: tuple[str, ...] | None = (
        None  # static; an `Agent` uses it under these instructions alone; None: under all
    )

    def model(self, theta: Theta | None = None, dropout_key: jax.Array | None = None) -> Policy:
        """The adapted policy, with other values of theta where they are given."""
        theta = self.theta if theta is None else theta
        return cast(Policy, adapters.join(self.graph, theta, self.phi, dropout_key))

    def applies(self, instruction: str) -> bool:
        """Whether the adapters are for an instruction, whatever its case and spaces."""
        return self.only_for is None or same(instruction) in map(same, self.only_for)

    def check_base(self, base: Base) -> None:
        """Refuses a base that the adapters are not on: their commands would be another policy's, in other units.

        Raises:
          ValueError: the message names both fingerprints.
        """
        if self.base != base.fingerprint:
            raise ValueError(
                f"the adapters are on base {self.base}, this base is {base.fingerprint}: load them on this one"
            )

    def replace(self, **fields: PyTree) -> "Learner":
        """A copy with other fields."""
        return dataclasses.replace(self, **fields)


def learner(base: Base, placement: Placement, key: jax.Array) -> Learner:
    """Attaches fresh adapters to `base`."""
    return _learner(base, adapters.split(adapters.attach(base.model, placement, key)))


def outline(base: Base, placement: Placement) -> Learner:
    """As `learner`, but with theta's shapes alone, for values that come from elsewhere: nothing is computed.

    To draw a start takes seconds of compilation, a program for each shape.
    """
    found: list[adapters.Split] = []

    def theta(key: jax.Array) -> Theta:
        found.append(adapters.split(adapters.attach(base.model, placement, key)))
        return found[-1].theta

    shapes = jax.eval_shape(theta, jax.random.key(0))
    return _learner(base, found[-1]._replace(theta=shapes))


def _learner(base: Base, parts: adapters.Split) -> Learner:
    graph, theta, phi = parts
    return Learner(graph, theta, phi, base.model.stage_of(theta), len(base.statistics.action_mean), base.fingerprint)


def loss_fn(start: Learner, *, draws: int, dropout: bool = False) -> LossFn:
    """The training loss of a `types.Batch`, given theta alone.

    It is the flow-matching loss, with `draws` samples of (t, noise) a frame, and the adapters' own penalties.
    """

    def loss(theta: Theta, batch: Batch, key: jax.Array) -> jax.Array:
        dropout_key, flow_key = jax.random.split(key)
        model = start.model(theta, dropout_key if dropout else None)
        value = stages.loss(model, batch.inputs, batch.target, flow_key, draws=draws, action_dim=start.action_dim)
        extra = adapters.penalty(model)
        return value if extra is None else value + extra

    return loss


def zeros(theta: Theta) -> Theta:
    """Adapters that leave the base as it is."""
    return jax.tree.map(jnp.zeros_like, theta)
