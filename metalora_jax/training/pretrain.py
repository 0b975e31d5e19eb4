"""Pretraining of a base policy: plain imitation of demonstrations, all weights trained."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import logging
from flax import nnx
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from metalora_jax.data import normalize, relative
from metalora_jax.data.config import read_demos
from metalora_jax.data.frames import Frames, rows_and_labels
from metalora_jax.data.normalize import Statistics
from metalora_jax.data.sources import embodiment as embodiments
from metalora_jax.data.sources.embodiment import Embodiment
from metalora_jax.envs.world import world
from metalora_jax.policies import registry, stages
from metalora_jax.policies.policy import Policy
from metalora_jax.training.augmentation import augmented
from metalora_jax.training.loop import Gradient
from metalora_jax.training.recipe import Pretraining
from metalora_jax.types import ActionChunk, Array, Batch, Demo, Observation, PyTree

Prepare = Callable[[jax.Array], jax.Array]
"""`Family.prepare_float_images` at the policy's size."""


def create(recipe: Pretraining) -> Policy:
    """The policy that `recipe` trains, with fresh weights.

    Raises:
      ValueError: the type is missing or unknown, or the family cannot make a policy, see `Family.create`.
    """
    fields = dict(recipe.model)
    if "type" not in fields:
        raise ValueError('the config has no model.type; add the type of the policy to train, such as "smolvla"')
    return registry.family(fields.pop("type")).create(fields, nnx.Rngs(recipe.seed))


def read(recipe: Pretraining) -> dict[str, list[Demo]]:
    """The demonstrations that `recipe` trains on: those of the first part's tasks in all parts, and mirror images.

    Raises:
      ValueError: see `read_demos` and `augmented`.
    """
    known = [read_demos(part) for part in recipe.data.values()]
    demos = {task: [demo for part in known for demo in part.get(task, [])] for task in known[0]}
    return augmented(demos, recipe.learned.cameras, recipe.symmetries, recipe.paraphrases)


def embodiment(recipe: Pretraining, demos: Sequence[Demo]) -> Embodiment:
    """The robot that recorded what `recipe` trains on, as far as all parts agree; where they do not, it is logged.

    Joints and rate are those of the world where the data, such as HDF5, do not say them.

    Raises:
      ValueError: two parts have the same joints in another order.
    """
    robot, doubts = embodiments.common(part.embodiment for part in recipe.data.values())
    for doubt in doubts:
        logging.warning("%s", doubt)
    joints = tuple(f"{joint}.pos" for joint in world(recipe.control.world).joints) or None
    fps = (recipe.control.simulator or {}).get("fps")
    return robot.over(Embodiment(state=joints, action=joints, fps=fps and float(fps))).measured(demos)


def statistics(
    recipe: Pretraining, demos: Sequence[Demo], modes: Mapping[str, str], chunk: int, joints: Sequence[str]
) -> Statistics:
    """Those that `recipe` normalises by, of all demonstrations that it trains on.

    Args:
      recipe: says which actions are relative.
      demos: of all tasks.
      modes: the family's.
      chunk: actions in a chunk of the policy.
      joints: names of the action's dimensions, or none.

    Raises:
      ValueError: `relative` does not fit the actions, see `relative.mask_of` and `relative.mismatch`.
    """
    if not recipe.relative:
        return normalize.compute(demos, modes=modes)
    states, actions = [demo.state for demo in demos], [demo.actions for demo in demos]
    mask = relative.mask_of(recipe.relative, states[0].shape[1], actions[0].shape[1], joints)
    if wrong := relative.mismatch(states, actions, mask, of_differences=False):
        raise ValueError(f"config.relative: {wrong}")
    return normalize.compute(demos, modes=modes, relative=mask, chunk=chunk)


def train_tokenizer(texts: Sequence[str], vocab_size: int) -> Tokenizer:
    """A byte-level BPE tokenizer of the kind that SmolVLM2 uses, at a size suitable for a nano policy; 0 is padding."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<pad>", "<fake>", "<global>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([text + "\n" for text in texts for _ in range(2)], trainer)  # a merge needs two
    return tokenizer


OPENING = 0.2  # of a demonstration: its opening, in which no state tells yet where it leads


class Labelled(NamedTuple):
    """Every frame of every task with its action chunk, tasks in a fixed order."""

    rows: list[np.ndarray]  # per task (n,)
    labels: list[ActionChunk]  # per task (n, chunk, action)
    openings: list[np.ndarray]  # per task (m,): which of the n are in the opening of their demonstration


def label(frames: Frames) -> Labelled:
    """Action chunks for all frames, as recorded."""
    pairs = [rows_and_labels(frames, task, range(count)) for task, count in sorted(frames.demos.items())]
    share = [
        np.concatenate([at / len(acts) for at, acts in zip(frames.moments[task], frames.actions[task], strict=True)])
        for task in sorted(frames.demos)
    ]
    openings = [np.flatnonzero(each < OPENING) for each in share]
    return Labelled([rows for rows, _ in pairs], [labels for _, labels in pairs], openings)


def draw_batch(frames: Frames, labelled: Labelled, seed: int, step: int, size: int, *, opening: float = 0.0) -> Batch:
    """`size` frames, tasks equally likely whatever their number of frames, each in one of its variants.

    About a share `opening` of them is from the openings of demonstrations, the rest from anywhere. Pure in (seed,
    step). Images stay uint8.
    """
    rng = np.random.default_rng([seed, step])
    tasks = rng.integers(len(labelled.rows), size=size)
    picks = [rng.integers(len(labelled.rows[task])) for task in tasks]
    if opening:
        early = rng.random(size) < opening
        picks = [
            rng.choice(labelled.openings[task]) if first else i
            for task, i, first in zip(tasks, picks, early, strict=True)
        ]
    rows = frames.vary(rng, np.array([labelled.rows[task][i] for task, i in zip(tasks, picks, strict=True)]))
    target = ActionChunk(
        np.stack([labelled.labels[task].actions[i] for task, i in zip(tasks, picks, strict=True)]),
        np.stack([labelled.labels[task].is_pad[i] for task, i in zip(tasks, picks, strict=True)]),
    )
    images = frames.pictures(rows)
    mask = np.ones(images.shape[:2], bool)
    state = frames.state[rows % len(frames.state)]
    return Batch(Observation(images, mask, *frames.text(rows), state), target)


def augment(key: jax.Array, images: jax.Array, shift: int, brightness: float, prepare: Prepare) -> jax.Array:
    """uint8 (B, C, H, W, 3) -> float32 (B, C, size, size, 3) in [-1, 1], as the policy takes them: by `prepare`.

    Moved by <= `shift` [px of H], brightness scaled by 1 +- `brightness`. All cameras of a frame move alike. The shift
    is that of DrQ (Kostrikov et al. 2020, arXiv:2004.13649).
    """
    shift_key, light_key = jax.random.split(key)
    batch, _, height, width, _ = images.shape
    x = jnp.pad(images, ((0, 0), (0, 0), (shift, shift), (shift, shift), (0, 0)), mode="edge")
    offsets = jax.random.randint(shift_key, (batch, 2), 0, 2 * shift + 1)

    def crop(image: jax.Array, offset: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(image, (0, offset[0], offset[1], 0), (image.shape[0], height, width, 3))

    x = jax.vmap(crop)(x, offsets).astype(jnp.float32) / 255.0
    factor = jax.random.uniform(light_key, (batch, 1, 1, 1, 1), minval=1 - brightness, maxval=1 + brightness)
    x = jnp.clip(x * factor, 0.0, 1.0)
    return prepare(x)


def gradient(
    graph: nnx.GraphDef, action_dim: int, draws: int, shift: int, brightness: float, prepare: Prepare
) -> Gradient:
    """Gradient of the flow-matching loss with respect to all weights (a pure dict)."""

    def of(params: PyTree, batch: Batch, key: jax.Array) -> tuple[PyTree, dict[str, Array]]:
        image_key, flow_key = jax.random.split(key)
        images = augment(image_key, batch.inputs.images, shift, brightness, prepare)

        def loss(params: PyTree) -> jax.Array:
            model: Policy = nnx.merge(graph, params)
            seen = batch.inputs._replace(images=images)
            return stages.loss(model, seen, batch.target, flow_key, draws=draws, action_dim=action_dim)

        value, grads = jax.value_and_grad(loss)(params)
        return grads, {"loss": value}

    return of


def schedule(peak: float, steps: int, warmup: int) -> optax.Schedule:
    """A linear warm-up and a cosine to a hundredth of the peak rate."""
    return optax.warmup_cosine_decay_schedule(0.0, peak, warmup, steps, peak / 100)


def optimizer(schedule: optax.Schedule, weight_decay: float) -> optax.GradientTransformation:
    """AdamW with clipping."""
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, b2=0.99, weight_decay=weight_decay))
