"""A small model of sentencepiece with the settings of PaliGemma's."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from metalora_jax.policies.pi0 import tokenizer

SIZE = 340  # tokens


def train(folder: Path, texts: Sequence[str]) -> Path:
    """Writes the model under the name of PaliGemma's; skips the test where the library is missing."""
    pytest.importorskip("google.protobuf")
    library = pytest.importorskip("sentencepiece")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "texts").write_text("\n".join(texts))
    library.SentencePieceTrainer.train(
        input=str(folder / "texts"),
        model_prefix=str(folder / Path(tokenizer.SENTENCEPIECE).stem),
        model_type="bpe",
        vocab_size=SIZE,
        byte_fallback=True,
        split_digits=True,
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        user_defined_symbols=["\n", "<loc0000>"],
        **{"pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3, "minloglevel": 2},
    )
    return folder / tokenizer.SENTENCEPIECE
