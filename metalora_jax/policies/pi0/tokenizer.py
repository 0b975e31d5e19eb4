"""PaliGemma's tokenizer, which pi0 and pi0.5 share."""

from pathlib import Path

from tokenizers import Tokenizer

from metalora_jax.policies.hub import TOKENIZER
from metalora_jax.policies.tokens import read_tokenizer


def find(directory: Path, given: str | Path | None = None) -> Tokenizer | None:
    """The tokenizer of a policy: `given`, a file or the directory that holds it, or else from the policy's directory.

    Returns:
      None where nothing is given and the directory has none.

    Raises:
      ValueError: there is none at `given`, or it cannot be read.
    """
    place = directory if given is None else Path(given)
    file = place / TOKENIZER if place.is_dir() else place
    if file.is_file():
        return read_tokenizer(file)
    if given is None:
        return None
    raise ValueError(f"no {TOKENIZER} in {place}; put PaliGemma's there")
