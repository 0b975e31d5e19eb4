"""Before a policy learns to act, it learns to see: where each thing is in each picture, and which one is meant.

The towers of published policies come from billions of pictures with captions and places. A nano policy that is trained
on actions alone, from a few thousand scenes, learns scenes by heart instead. A simulator knows where things are, so two
questions can be asked that have an answer in every scene:

- *Where is everything?* Each thing has a score for every image token of a camera and reads its place from the tokens
  that score highest (the spatial softmax of Levine et al. 2016, arXiv:1504.00702, over tokens). Scores and readings are
  linear, so what they need is there for the language model to find.
- *Where is what the instruction names?* A linear map reads it from the velocity of the flow at no actions at all:
  image, words and action expert must work together for it, as they must for an action.

Some of these questions go on being asked while the policy learns to act (`beside`): without them it forgets what it
does not need at first, such as where the marker is on which it will place what it does not hold yet. Both maps are
thrown away afterwards.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from metalora_jax.data.preprocessor import Preprocessor
from metalora_jax.envs.control import Control
from metalora_jax.envs.world import Pointed, world
from metalora_jax.fields import check_positive, from_fields
from metalora_jax.machine import files
from metalora_jax.machine.progress import progress
from metalora_jax.policies import stages
from metalora_jax.policies.policy import Policy
from metalora_jax.training.loop import Gradient
from metalora_jax.types import Array, Batch, Observation, PyTree, Sizes


class Grounding(NamedTuple):
    """The section `grounding` of a recipe of pretraining, for worlds with `World.things`."""

    scenes: int  # that are rendered, once
    steps: int
    batch: int  # scenes in a step
    learning_rate: float  # the highest
    beside: int  # scenes in each later step, in which the policy learns to act

    @classmethod
    def from_config(cls, fields: Mapping[str, Any], where: str) -> "Grounding":
        """Reads the section, for the world named `where`; see `fields.from_fields`.

        Raises:
          ValueError: a number is not positive, or the world does not say where things are in its pictures.
        """
        self = from_fields(cls, fields, "grounding")
        check_positive(self, "grounding", cls._fields)
        if not world(where).things:
            raise ValueError(
                f"grounding: the world {where} does not say where things are in its pictures; leave it out"
            )
        return self


class Scenes(NamedTuple):
    """N scenes at rest."""

    images: np.ndarray  # (N, C, H, W, 3) uint8
    state: np.ndarray  # (N, state_dim), in the world's units
    points: np.ndarray  # (N, C, things, 2), see `world.View`


class Lesson(NamedTuple):
    """What one step learns from; see `lessons`."""

    inputs: Observation  # images still uint8
    points: Array  # (B, C, things, 2)
    named: Array  # (B, C, named, 2): of the things that the instruction names, in its order; NaN for none


def scenes(control: Control, cameras: Sequence[str], states: np.ndarray, size: int, seed: int, count: int) -> Scenes:
    """Renders `count` scenes, with the robot in states that demonstrations went through.

    Args:
      control: the world, and how its simulators are opened.
      cameras: their names, in the policy's order.
      states: (frames, state_dim) of demonstrations, in the world's units.
      size: [px] of the pictures.
      seed: of scenes and states.
      count: how many.
    """
    where, rng = world(control.world), np.random.default_rng([seed, 5])
    with where.open(where.tasks()[0], cameras, size, **(control.simulator or {})) as env:
        assert isinstance(env, Pointed)
        views = [
            env.view(int(rng.integers(2**31)), states[rng.integers(len(states))])
            for _ in progress(range(count), description="scenes rendered")
        ]
    images, state = (np.stack([getattr(view.frame, name) for view in views]) for name in ("images", "state"))
    return Scenes(images, state, np.stack([view.points for view in views]))


def kept(path: Path, make: Callable[[], Scenes]) -> Scenes:
    """What `make` returns, made once and then read from the file `path`."""
    if not path.exists():
        made = make()
        with files.atomic_file(path) as staging, staging.open("wb") as stream:
            np.savez(stream, **made._asdict())
    with np.load(path, allow_pickle=False) as stored:
        return Scenes(*(stored[name] for name in Scenes._fields))


def named(instructions: Sequence[str], things: Sequence[str]) -> np.ndarray:
    """(instructions, most): the numbers of the things that each one names, in its order, then -1.

    Raises:
      ValueError: an instruction names nothing.
    """
    found = [sorted((said.index(thing), k) for k, thing in enumerate(things) if thing in said) for said in instructions]
    for said, numbers in zip(instructions, found, strict=True):
        if not numbers:
            raise ValueError(f"grounding: the instruction {said!r} names none of {', '.join(things)}; leave it out")
    most = max(map(len, found))
    return np.array([[k for _, k in numbers] + [-1] * (most - len(numbers)) for numbers in found])


def lessons(
    known: Scenes, instructions: Sequence[str], things: Sequence[str], reads: Preprocessor, seed: int, size: int
) -> Callable[[int], Lesson]:
    """What gives the lesson of each step, of `size` scenes with an instruction each; pure in (seed, step)."""
    numbers, state = named(instructions, things), reads.normalize_state(known.state)

    def lesson(step: int) -> Lesson:
        rng = np.random.default_rng([seed, step, 6])
        rows, told = rng.integers(len(state), size=size), rng.integers(len(instructions), size=size)
        words = [reads.text(instructions[i], state[row : row + 1]) for i, row in zip(told, rows, strict=True)]
        tokens, token_mask = (np.concatenate(each) for each in zip(*words, strict=True))
        images, points, which = known.images[rows], known.points[rows], numbers[told]
        meant = np.take_along_axis(points, np.maximum(which, 0)[:, None, :, None], axis=2)
        inputs = Observation(images, np.ones(images.shape[:2], bool), tokens, token_mask, state[rows])
        return Lesson(inputs, points, np.where(which[:, None, :, None] < 0, np.nan, meant).astype(np.float32))

    return lesson


def pointers(sizes: Sizes, width: int, points: tuple[int, ...], meant: tuple[int, ...], seed: int) -> dict[str, Array]:
    """Fresh linear maps, for features of `width`, `Lesson.points` and `Lesson.named` of these shapes."""
    shapes = {"all": (width, 3 * points[2]), "named": (sizes.chunk * sizes.action, int(np.prod(meant[1:])))}
    keys = jax.random.split(jax.random.key(seed), len(shapes))
    return {
        name: jax.random.normal(key, shape) * shape[0] ** -0.5
        for key, (name, shape) in zip(keys, shapes.items(), strict=True)
    }


def places(pointer: Array, features: jax.Array) -> jax.Array:
    """Where things are, (B, C, things, 2), read from features (B, C, tokens, width)."""
    read = features @ pointer
    read = read.reshape(*read.shape[:-1], -1, 3)  # (B, C, tokens, things, score and place)
    weights = jax.nn.softmax(4 * read[..., 0], axis=2)
    return jnp.einsum("bcnk,bcnkp->bckp", weights, read[..., 1:])


def gradient(graph: nnx.GraphDef, augment: Callable[[jax.Array, jax.Array], jax.Array]) -> Gradient:
    """Gradient of the mean error of what is in view, with respect to {"policy": all weights, "pointers": maps}.

    Args:
      graph: of the policy.
      augment: (key, images uint8) -> images as `encode` takes them.
    """

    def of(params: PyTree, lesson: Lesson, key: jax.Array) -> tuple[PyTree, dict[str, Array]]:
        images = augment(key, jnp.asarray(lesson.inputs.images))

        def loss(params: PyTree) -> tuple[jax.Array, dict[str, Array]]:
            model: Policy = nnx.merge(graph, params["policy"])
            features = model.encode(images)
            context = stages.context_of(model, stages.Features(features, *lesson.inputs[1:]))
            batch, sizes = len(images), model.sizes
            velocity = model.velocity(context, jnp.zeros((batch, sizes.chunk, sizes.action)), jnp.ones(batch))
            everything = _error(places(params["pointers"]["all"], features), lesson.points)
            read = velocity.reshape(batch, -1) @ params["pointers"]["named"]
            meant = _error(read.reshape(lesson.named.shape), lesson.named)
            return everything + meant, {"everything": everything, "named": meant}

        (value, parts), grads = jax.value_and_grad(loss, has_aux=True)(params)
        return grads, {"loss": value} | parts

    return of


class Both(NamedTuple):
    """What one step learns from that goes on asking."""

    frames: Batch
    lesson: Lesson


def beside(acting: Gradient, seeing: Gradient) -> Gradient:
    """Gradient of the sum of both losses, with respect to what `seeing` learns; "loss" is that of `acting`."""

    def of(params: PyTree, batch: Both, key: jax.Array) -> tuple[PyTree, dict[str, Array]]:
        act_key, see_key = jax.random.split(key)
        grads, seen = seeing(params, batch.lesson, see_key)
        acts, metrics = acting(params["policy"], batch.frames, act_key)
        grads = grads | {"policy": jax.tree.map(jnp.add, grads["policy"], acts)}
        return grads, metrics | {"grounding": seen["loss"]}

    return of


def _error(found: jax.Array, true: Array) -> jax.Array:
    known = jnp.isfinite(true)
    return jnp.where(known, jnp.abs(found - jnp.where(known, true, 0.0)), 0.0).sum() / jnp.maximum(known.sum(), 1)
