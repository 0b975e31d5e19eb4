"""Tokenizers, and prompts of a fixed length."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from metalora_jax.machine.hub import short


def read_tokenizer(file: Path) -> Tokenizer:
    """The tokenizer in a file of the library tokenizers, without truncation or padding of its own.

    Raises:
      ValueError: it cannot be read.
    """
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises nothing narrower
        raise ValueError(f"{file} is not a readable tokenizer ({short(error)}); download it again") from error
    tokenizer.no_truncation()  # a file may ask for both; here the policy decides
    tokenizer.no_padding()
    return tokenizer


def rows(
    texts: Sequence[str],
    ids: Sequence[Sequence[int]],
    limit: int,
    pad: int,
    vocab_size: int,
    remedy: str = "shorten it",
) -> tuple[np.ndarray, np.ndarray]:
    """Prompts of a fixed length, padded on the right.

    Args:
      texts: B prompts, for messages.
      ids: their tokens.
      limit: L, the length.
      pad: token that fills a row.
      vocab_size: of the policy.
      remedy: what to do about a prompt that is too long, for messages.

    Returns:
      tokens (B, L) int32; mask (B, L) bool, True on real tokens.

    Raises:
      ValueError: a prompt is too long, or holds a token that the policy has no embedding for.
    """
    tokens, mask = np.full((len(ids), limit), pad, np.int32), np.zeros((len(ids), limit), bool)
    for row, (text, known) in enumerate(zip(texts, ids, strict=True)):
        if len(known) > limit:
            raise ValueError(f"{text!r} has {len(known)} tokens, the limit is {limit}; {remedy}")
        if (highest := max(known, default=0)) >= vocab_size:
            raise ValueError(f"{text!r} has token {highest}, beyond vocab_size={vocab_size}")
        tokens[row, : len(known)], mask[row, : len(known)] = known, True
    return tokens, mask
