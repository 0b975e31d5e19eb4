"""Folders for results that can be computed again: METALORA_CACHE, or ~/.cache/metalora_jax."""

import contextlib
import hashlib
import os
import platform
from pathlib import Path
from typing import Any

import jax
from absl import logging
from jax._src import compilation_cache

from metalora_jax.machine import files

FOLDER = "METALORA_CACHE"  # environment variable
COMPILED = "JAX_COMPILATION_CACHE_DIR"  # of JAX
_WORTH = 0.5  # [s] of compilation


def folder(name: str) -> Path:
    """The folder of one cache; it is not created here."""
    return Path(os.environ.get(FOLDER) or "~/.cache/metalora_jax").expanduser() / name


def noted(kind: str, key: str) -> str | None:
    """What `note` was told, by this run or an earlier one; None if nothing, or if it has been damaged since."""
    try:
        digest, _, text = (folder("notes") / kind / key).read_text(encoding="utf-8").partition(" ")
    except (OSError, UnicodeDecodeError):
        return None
    return text if digest == _digest(text) else None


def note(kind: str, key: str, text: str) -> None:
    """Keeps a text that would take long to find out again; `key` names all that it depends on.

    Where the folder cannot be written to, nothing is kept.
    """
    path = folder("notes") / kind / key
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.atomic_file(path, durable=False) as staging:
            staging.write_text(f"{_digest(text)} {text}", encoding="utf-8")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def keep_compiled() -> None:
    """Makes this process and those that it starts cache compiled programs on disk.

    JAX_COMPILATION_CACHE_DIR, JAX's own variable, takes precedence. Programs for a CPU hold instructions that another
    one may lack, so each kind of processor has a folder of its own: home directories are shared.
    """
    if COMPILED not in os.environ:
        kind = hashlib.sha256(f"{platform.machine()} {_instructions()} {jax.__version__}".encode()).hexdigest()[:12]
        os.environ[COMPILED] = str(folder(f"compiled-{kind}"))
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", str(_WORTH))
    jax.config.update("jax_compilation_cache_dir", os.environ[COMPILED])
    shortest = os.environ.get("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", str(_WORTH))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", float(shortest))
    _replace_damaged()


def _replace_damaged() -> None:
    """Lets a damaged entry be written again: JAX compiles again, but keeps the entry, and warns of it in every run.

    JAX has no public place for this; where its internals have changed, it stays as JAX has it.
    """
    read = getattr(compilation_cache, "get_executable_and_time", None)
    if read is None or hasattr(read, "replaces_damaged"):
        return

    def checked(cache_key: str, *arguments: Any, **named: Any) -> Any:
        try:
            return read(cache_key, *arguments, **named)
        except Exception as error:  # whatever reading a damaged file raises
            entry = Path(os.environ[COMPILED], f"{cache_key}-cache")
            if not entry.is_file():
                raise
            logging.info("%s cannot be read (%s); it is compiled again", entry, type(error).__name__)
            entry.unlink(missing_ok=True)
            return None, None

    checked.replaces_damaged = True  # type: ignore[attr-defined]
    compilation_cache.get_executable_and_time = checked


def _instructions() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
