"""Where pi0's tokenizer comes from, and that a translated file of sentencepiece gives the same tokens."""

import builtins

import pytest
from tokenizers import Tokenizer, models

from metalora_jax.policies.pi0 import tokenizer
from tests.policies import small_sentencepiece

WORDS = ("push the red cup into the drawer", "Task: lift, State: 0 128 255 -1;", "Action: ", "two  spaces and 3.5 cm")


@pytest.fixture
def google(tmp_path):
    """A small model with PaliGemma's settings."""
    file = small_sentencepiece.train(tmp_path, WORDS * 20)
    return pytest.importorskip("sentencepiece").SentencePieceProcessor(model_file=str(file))


def test_both_libraries_give_the_same_tokens(google, tmp_path, monkeypatch):
    found = tokenizer.find(tmp_path)
    for text in (*WORDS, " ".join(WORDS), "\n", "unseen wörds <loc0000>\n", "猫 123"):
        assert found.encode(text, add_special_tokens=False).ids == google.encode(text)
    (tmp_path / "big_vision").mkdir()
    (tmp_path / tokenizer.SENTENCEPIECE).rename(tmp_path / "big_vision" / tokenizer.SENTENCEPIECE)
    assert tokenizer.find(tmp_path) is None
    monkeypatch.setenv(tokenizer.OPENPI_DATA_HOME, str(tmp_path))
    assert tokenizer.find(tmp_path).get_vocab() == found.get_vocab()
    (tmp_path / tokenizer.SENTENCEPIECE).write_bytes(b"no model")
    with pytest.raises(ValueError, match="is no model of sentencepiece"):
        tokenizer.find(tmp_path)


def test_a_missing_file_or_library_is_named(tmp_path, monkeypatch):
    monkeypatch.delenv(tokenizer.OPENPI_DATA_HOME, raising=False)
    assert tokenizer.find(tmp_path) is None
    with pytest.raises(ValueError, match=r"no tokenizer.json or paligemma_tokenizer.model in .*gs://big_vision"):
        tokenizer.find(tmp_path, tmp_path)
    Tokenizer(models.WordLevel({"?": 0}, unk_token="?")).save(str(tmp_path / "tokenizer.json"))
    assert tokenizer.find(tmp_path).get_vocab() == {"?": 0}
    real = builtins.__import__

    def without(name, *rest):
        if name.startswith("sentencepiece"):
            raise ImportError(f"No module named {name!r}")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ValueError, match="install the extra pi0: sentencepiece"):
        tokenizer.from_sentencepiece(tmp_path / "paligemma_tokenizer.model")
