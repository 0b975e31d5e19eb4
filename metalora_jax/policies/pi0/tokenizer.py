"""PaliGemma's tokenizer, which pi0 and pi0.5 share: found, and read from Google's file of the library sentencepiece.

That file is translated once, when a base is made of openpi's weights; the base has a tokenizer.json like any other.
"""

import os
from pathlib import Path
from typing import Any

from absl import logging
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers

from metalora_jax.machine.hub import short
from metalora_jax.policies.hub import TOKENIZER
from metalora_jax.policies.pi0.config import Pi0Config
from metalora_jax.policies.tokens import read_tokenizer
from metalora_jax.words import listed

SENTENCEPIECE = "paligemma_tokenizer.model"
OPENPI_DATA_HOME = "OPENPI_DATA_HOME"  # environment variable: where openpi keeps what it has fetched
SOURCE = f"gs://big_vision/{SENTENCEPIECE}"
_NORMAL, _USER_DEFINED, _BYTE = 1, 4, 6  # sentencepiece's types of pieces
KNOWN = {"<bos>": 2, "\n": 108, "0": 235276, "1": 235274, "2": 235284, "8": 235321}
"""Some of PaliGemma's pieces, and their numbers."""
_PROBES = (  # both libraries must agree on these
    "push the red cup into the drawer",
    "\n",
    "Task: put both moka pots on the stove, State: 128 0 255 -1 17;\nAction: ",
    "Two  spaces, a café at 3.5 cm; 猫",
)


def find(directory: Path, given: str | Path | None = None) -> Tokenizer | None:
    """The tokenizer of a policy.

    Args:
      directory: the policy's.
      given: tokenizer.json or paligemma_tokenizer.model, or the directory that holds one of them.

    Returns:
      That of `given`; or else that in `directory`, or openpi's in $OPENPI_DATA_HOME/big_vision, or None. The variable
      is ~/.cache/openpi where it is not set, as in openpi.

    Raises:
      ValueError: there is none at `given`, or the file cannot be read.
    """
    home = Path(os.environ.get(OPENPI_DATA_HOME) or "~/.cache/openpi").expanduser()
    places = [directory, home / "big_vision"] if given is None else [Path(given)]
    for place in places:
        for file in [place / TOKENIZER, place / SENTENCEPIECE] if place.is_dir() else [place]:
            if file.is_file():
                return from_sentencepiece(file) if file.suffix == ".model" else read_tokenizer(file)
    if given is None:
        return None
    raise ValueError(f"no {TOKENIZER} or {SENTENCEPIECE} in {given}; the latter is {SOURCE}")


def fitting(tokenizer: Tokenizer, vocab_size: int, bos_token_id: int | None = KNOWN["<bos>"]) -> Tokenizer:
    """The tokenizer itself, if it is that of a policy.

    Of openpi's real policies that is PaliGemma's, which is known by some of its pieces. One of another size is taken,
    and what prompts rely on is logged where it lacks it: a token that begins them, and one for a line break and for
    each digit, in a state of several, too.

    Raises:
      ValueError: the policy embeds another number of tokens; or as many as PaliGemma has, and this one is another's.
    """
    sizes = {tokenizer.get_vocab_size(with_added_tokens=added) for added in (True, False)}
    if vocab_size not in sizes:
        raise ValueError(
            f"the tokenizer has {max(sizes)} tokens, the policy embeds {vocab_size}: it is another model's"
        )
    if said := _foreign(tokenizer, vocab_size, bos_token_id):
        if vocab_size == Pi0Config.vocab_size:
            raise ValueError(f"the tokenizer is not PaliGemma's, though as large: {said}; take {SOURCE}")
        logging.warning("the tokenizer is not like PaliGemma's: %s; was the policy trained with it?", said)
    return tokenizer


def _foreign(tokenizer: Tokenizer, vocab_size: int, bos_token_id: int | None) -> str:
    """What of `KNOWN` is otherwise; ids count only in a vocabulary of PaliGemma's size."""
    found = []
    for piece, number in KNOWN.items():
        if piece == "<bos>":
            wanted, there = bos_token_id, tokenizer.token_to_id(piece)
            if wanted is not None and there != wanted:
                found.append(f"token {wanted}, which begins prompts, is {tokenizer.id_to_token(wanted)!r}")
            continue
        ids = tokenizer.encode(piece, add_special_tokens=False).ids
        if len(ids) != 1 or (vocab_size == Pi0Config.vocab_size and ids != [number]):
            found.append(f"{piece!r} is {ids}, not {[number] if vocab_size == Pi0Config.vocab_size else 'one token'}")
    digits = [number for digit in "128" for number in tokenizer.encode(digit, add_special_tokens=False).ids]
    if (ids := tokenizer.encode("128", add_special_tokens=False).ids) != digits:
        found.append(f"'128' is {ids}, not its digits {digits}")
    return listed(found)


def from_sentencepiece(file: Path) -> Tokenizer:
    """A tokenizer that gives the same tokens as sentencepiece does with a BPE model such as PaliGemma's.

    Raises:
      ValueError: the file cannot be read, is no model of this kind, or the two disagree on some text; or one of the
        libraries sentencepiece and protobuf is not installed.
    """
    try:
        from sentencepiece import SentencePieceProcessor
        from sentencepiece.sentencepiece_model_pb2 import ModelProto
    except ImportError as error:
        raise ValueError(f"{file} cannot be read ({error}); install the extra pi0: sentencepiece, protobuf") from None
    try:
        known = SentencePieceProcessor(model_file=str(file))
        model = ModelProto.FromString(file.read_bytes())
    except Exception as error:  # the libraries raise nothing narrower
        raise ValueError(f"{file} is no model of sentencepiece ({short(error)}); fetch {SOURCE} again") from error
    if model.trainer_spec.model_type != model.trainer_spec.BPE or model.normalizer_spec.add_dummy_prefix:
        raise ValueError(f"{file} is no BPE model without a prefix, as PaliGemma's is; fetch {SOURCE}")
    tokenizer = _translated(model)
    for text in _PROBES:
        if (ours := tokenizer.encode(text, add_special_tokens=False).ids) != known.encode(text):
            raise ValueError(f"{file}: {text!r} is {known.encode(text)} to sentencepiece, but {ours} as translated")
    return tokenizer


def _translated(model: Any) -> Tokenizer:
    """The library tokenizers' BPE of a `ModelProto`; spaces are "▁" in its pieces."""
    vocabulary = {piece.piece: number for number, piece in enumerate(model.pieces)}
    merges = []
    for whole in model.pieces:
        if whole.type == _NORMAL:
            halves = ((whole.piece[:at], whole.piece[at:]) for at in range(1, len(whole.piece)))
            merges += [(-whole.score, left, right) for left, right in halves if {left, right} <= vocabulary.keys()]
    merges.sort(key=lambda merge: merge[0])  # stable: pieces of the same score stay in order
    byte_fallback = any(piece.type == _BYTE for piece in model.pieces)
    unknown = model.pieces[model.trainer_spec.unk_id].piece
    pairs = [(left, right) for _, left, right in merges]
    tokenizer = Tokenizer(models.BPE(vocabulary, pairs, unk_token=unknown, fuse_unk=True, byte_fallback=byte_fallback))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    own = [piece.piece for piece in model.pieces if piece.type == _USER_DEFINED]
    tokenizer.add_tokens([AddedToken(piece, normalized=True) for piece in own])
    return tokenizer
