"""A whole base at the smallest size, and made-up demonstrations for it: no simulator, no download."""

import functools

import numpy as np

from metalora_jax.adaptation import base as bases
from metalora_jax.adaptation.base import Base
from metalora_jax.data import normalize
from metalora_jax.data.frames import Frames, gather
from metalora_jax.training.pretrain import train_tokenizer
from metalora_jax.types import Demo
from tests.policies.tiny_smolvla import build

INSTRUCTIONS = {"reach": "reach the goal", "push": "push the puck to the goal"}
EXPERT = dict(pattern=r"expert/.*|action_.*", kind="lora", rank=2, alpha=4.0, b_std=0.1)
SIZES = dict(image_size=64, patch_size=16, cameras=1, vocab_size=320, max_tokens=14, num_steps=2)


def make_demos(task: str, count: int = 4, cameras: int = 1, image_size: int = 64) -> list[Demo]:
    """Demonstrations of unequal lengths 6, 7, ...; pure in the arguments."""
    rng = np.random.default_rng([len(task), count])

    def one(steps: int) -> Demo:
        images = rng.integers(0, 256, (steps, cameras, image_size, image_size, 3), dtype=np.uint8)
        state = rng.uniform(-1, 1, (steps, 4)).astype(np.float32)
        return Demo(INSTRUCTIONS[task], images, state, rng.uniform(-0.5, 0.5, (steps, 4)).astype(np.float32))

    return [one(6 + i) for i in range(count)]


@functools.cache
def make_base() -> Base:
    """Random weights, the tokenizer and statistics of the made-up demonstrations."""
    statistics = normalize.compute([demo for task in INSTRUCTIONS for demo in make_demos(task)])
    tokenizer = train_tokenizer(list(INSTRUCTIONS.values()), SIZES["vocab_size"])
    return bases.make(build(**SIZES), tokenizer, statistics)


@functools.cache
def make_frames() -> Frames:
    """The made-up demonstrations of both tasks."""
    base = make_base()
    return gather({task: make_demos(task) for task in INSTRUCTIONS}, base.preprocessor)
