"""All frames of many demonstrations in a few arrays, and minibatches of them selected by row number."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from absl import logging

from metalora_jax.data import widths
from metalora_jax.data.augment import ImageAugmentation
from metalora_jax.data.blocks import Blocks
from metalora_jax.data.chunks import chunk_actions
from metalora_jax.data.film import Film
from metalora_jax.data.instructions import said
from metalora_jax.data.preprocessor import Preprocessor
from metalora_jax.types import ActionChunk, Demo, Observation, Pictures
from metalora_jax.words import plural

Relabel = Callable[[np.ndarray], np.ndarray]  # recorded actions (T, D) -> what to command instead (T, D)


class Frames(NamedTuple):
    """N frames. What does not depend on a deployment condition is kept per row; action labels are made when drawn."""

    images: np.ndarray | Blocks  # (N, C, H, W, 3) uint8; Blocks where pictures are decoded when they are looked at
    state: np.ndarray  # (N, state) float32, normalised
    tokens: np.ndarray  # (N, L) int32; (variants * N, L) where variants differ in their words
    token_mask: np.ndarray  # like tokens, bool
    first_row: dict[str, tuple[int, ...]]  # task -> row of the first frame of each of its demonstrations
    moments: dict[str, tuple[np.ndarray, ...]]  # task -> which steps (n,) of each demonstration its rows are, ascending
    actions: dict[str, tuple[np.ndarray, ...]]  # task -> recorded actions (T, action_dim) of each demonstration
    preprocessor: Preprocessor
    augment: ImageAugmentation | None = None

    @property
    def variants(self) -> int:
        """Of every frame. Row `variant * N + row` is a variant of `row`: same action, other colours or words."""
        return self.augment.variants if self.augment else 1

    def vary(self, rng: np.random.Generator, rows: np.ndarray) -> np.ndarray:
        """A variant of each row, drawn uniformly; does not use `rng` if there is only one variant."""
        if self.variants == 1:
            return rows
        return rows + len(self.state) * rng.integers(self.variants, size=rows.shape)

    def pictures(self, rows: np.ndarray) -> np.ndarray:
        """The images (..., C, H, W, 3) uint8 at `rows`."""
        variant, row = np.divmod(rows, len(self.state))
        images = self.images[row]
        if self.augment is None or not variant.any():
            return images
        numbers = zip(images.reshape(-1, *images.shape[-4:]), row.ravel(), variant.ravel(), strict=True)
        return np.stack([self.augment.apply(image, int(r), int(v)) for image, r, v in numbers]).reshape(images.shape)

    def identity(self, rows: np.ndarray) -> bytes:
        """What stands for the pictures at `rows` (n,) in a digest: of films, no picture is decoded for it."""
        variant, row = np.divmod(rows, len(self.state))
        if isinstance(self.images, np.ndarray):
            images = self.pictures(rows)
            return f"{images.dtype}{images.shape}".encode() + images.tobytes()
        parts = [f"{self.images.shape[1:]}".encode()]
        for piece, chosen, at in self.images.parts(row):
            parts += [chosen.tobytes(), piece.identity(at) if isinstance(piece, Film) else piece[at].tobytes()]
        if variant.any():
            parts += [repr(self.augment).encode(), rows.astype(np.int64).tobytes()]
        return b"".join(parts)

    def text(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Tokens (..., L) and their mask at `rows`."""
        at = rows % len(self.tokens)
        return self.tokens[at], self.token_mask[at]

    def states(self, rows: np.ndarray) -> np.ndarray:
        """The states (..., state_dim) at `rows`, in the robot's units."""
        return self.preprocessor.unnormalize_state(self.state[rows % len(self.state)])

    @property
    def demos(self) -> dict[str, int]:
        """How many demonstrations each task has."""
        return {task: len(rows) for task, rows in self.first_row.items()}

    def observe(self, rows: np.ndarray) -> Observation:
        """The observations at `rows` (any shape), images in [-1, 1] and of the model's size."""
        rows = np.asarray(rows)
        images, row = self.pictures(rows), rows % len(self.state)
        mask = np.ones(images.shape[:-3], bool)
        return Observation(self.preprocessor.prepare_images(images), mask, *self.text(rows), self.state[row])


def gather(
    demos: Mapping[str, Sequence[Demo]],
    preprocessor: Preprocessor,
    augment: ImageAugmentation | None = None,
    each: int | None = None,
    in_memory: bool = False,
) -> Frames:
    """Puts the demonstrations of every task into one Frames.

    Args:
      demos: of every task.
      preprocessor: of the policy that the frames are for.
      augment: other variants of the frames.
      each: how many frames of each demonstration become rows, spread evenly; their chunks still hold consecutive
        actions. None: all.
      in_memory: decodes all pictures now, for what draws frames at random in every step.

    Raises:
      ValueError: if a task has no demonstration, has one with fewer frames than `each`, or has paraphrases but no
        variant that could use them; or they are not as wide as the policy takes them, see `widths.check`.
    """
    widths.check(demos, preprocessor.statistics, preprocessor.sizes)
    images, state, row = [], [], 0
    first_row: dict[str, tuple[int, ...]] = {}
    moments: dict[str, tuple[np.ndarray, ...]] = {}
    actions: dict[str, tuple[np.ndarray, ...]] = {}
    for task, recorded in demos.items():
        if not recorded:
            raise ValueError(f"{task}: no demonstrations; record at least one")
        starts = []
        moments[task] = tuple(_spread(task, len(demo.actions), each) for demo in recorded)
        for demo, chosen in zip(recorded, moments[task], strict=True):
            starts.append(row)
            row += len(chosen)
            images.append(demo.images if each is None else _thinned(demo.images, chosen))
            state.append(preprocessor.normalize_state(demo.state[chosen]))
        first_row[task] = tuple(starts)
        actions[task] = tuple(demo.actions for demo in recorded)
    films = any(isinstance(part, Film) for part in images)
    states = np.concatenate(state)
    tokens, token_mask = _words(demos, first_row, moments, states, preprocessor, augment)
    return Frames(
        images=np.concatenate(images) if in_memory or not films else Blocks(images),
        state=states,
        tokens=tokens,
        token_mask=token_mask,
        first_row=first_row,
        moments=moments,
        actions=actions,
        preprocessor=preprocessor,
        augment=augment,
    )


def _thinned(images: Pictures, chosen: np.ndarray) -> Pictures:
    return images.part(chosen) if isinstance(images, Film) else images[chosen]


def _spread(task: str, steps: int, count: int | None) -> np.ndarray:
    """`count` of `steps` moments: the middle of each of `count` equal parts."""
    if count is None:
        return np.arange(steps)
    if not 1 <= count <= steps:
        raise ValueError(
            f"{count} frames of each demonstration requested, but {task} has one of {plural(steps, 'frame')}: set "
            f"data.frames or --data_frames to 1 to {steps}, or leave it out for all"
        )
    return (np.arange(count) * 2 + 1) * steps // (2 * count)


def _words(
    demos: Mapping[str, Sequence[Demo]],
    first_row: Mapping[str, Sequence[int]],
    moments: Mapping[str, Sequence[np.ndarray]],
    states: np.ndarray,
    preprocessor: Preprocessor,
    augment: ImageAugmentation | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and mask of all frames: of every variant if there are paraphrases, else of the frames alone."""
    known = [
        (demo, row, chosen)
        for task, rows in first_row.items()
        for demo, row, chosen in zip(demos[task], rows, moments[task], strict=True)
    ]
    variants = 1
    if any(demo.paraphrases for demo, *_ in known):
        if augment is None or augment.variants == 1:
            raise ValueError("paraphrases apply to variants only: set augment.variants or --variants to 2 or more")
        variants = augment.variants
    tokens, masks = [], []
    cut: dict[str, list[np.ndarray]] = {}
    for variant in range(variants):
        for demo, row, chosen in known:
            parts = said(demo, augment.seed if augment else 0, row, variant, chosen)
            order = np.argsort(np.concatenate([where for _, where in parts]))
            made = [preprocessor.text(text, states[row + where]) for text, where in parts]
            for text, where in parts:
                cut.setdefault(text, []).append(preprocessor.cut(text, states[row + where]))
            ids, mask = (np.concatenate(each)[order] for each in zip(*made, strict=True))
            tokens.append(ids)
            masks.append(mask)
    if said_of_cut := _said_of_cut({text: np.concatenate(over) for text, over in cut.items()}):
        logging.warning("%s", said_of_cut)
    return np.concatenate(tokens), np.concatenate(masks)


def _said_of_cut(over: Mapping[str, np.ndarray]) -> str:
    """How many prompts were cut, and by how much, from the tokens too many of every frame; "" for none."""
    worst = max(over, key=lambda text: over[text].max(initial=0))
    if not (most := over[worst].max(initial=0)):
        return ""
    texts = sum(bool(each.any()) for each in over.values())
    frames = sum(int((each > 0).sum()) for each in over.values())
    which = f"those of {texts} of {plural(len(over), 'instruction')}, {frames} of "
    which += f"{plural(sum(map(len, over.values())), 'frame')}, by up to {plural(int(most), 'token')}"
    return f"prompts are too long and were cut at the end: {which}, of {worst!r}"


def rows_and_labels(
    frames: Frames, task: str, demos: Sequence[int], relabel: Relabel | None = None
) -> tuple[np.ndarray, ActionChunk]:
    """Every frame of some demonstrations of `task`: rows (n,) and normalised action chunks (n, chunk, action).

    `relabel` turns recorded actions into the commands of another deployment, see `envs.conditions.command_labels`; a
    policy with relative actions is to predict those minus the state.
    """
    rows, chunks, pads = [], [], []
    for i in demos:
        actions = frames.actions[task][i]
        commands = actions if relabel is None else relabel(actions)
        chunk, pad = chunk_actions(commands, frames.preprocessor.sizes.chunk)
        chosen = frames.moments[task][i]
        rows.append(frames.first_row[task][i] + np.arange(len(chosen)))
        chunks.append(frames.preprocessor.labels(chunk[chosen], frames.states(rows[-1])))
        pads.append(pad[chosen])
    return np.concatenate(rows), ActionChunk(np.concatenate(chunks), np.concatenate(pads))


def pick(
    rng: np.random.Generator, rows: np.ndarray, labels: ActionChunk, shape: tuple[int, ...]
) -> tuple[np.ndarray, ActionChunk]:
    """Draws `shape` frames, without replacement while they last, along the last axis of `shape`."""
    *outer, count = shape
    if not outer:
        rounds, rest = divmod(count, len(rows))
        whole = [rng.permutation(len(rows)) for _ in range(rounds)]
        order = np.concatenate([*whole, rng.choice(len(rows), rest, replace=False)])
        return rows[order], ActionChunk(labels.actions[order], labels.is_pad[order])
    parts = [pick(rng, rows, labels, tuple(shape[1:])) for _ in range(shape[0])]
    return np.stack([r for r, _ in parts]), ActionChunk(
        *(np.stack(x) for x in zip(*(c for _, c in parts), strict=True))
    )
