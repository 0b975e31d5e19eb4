"""How commands start: a user's mistake ends in one line that names it, not in a traceback."""

import functools
import importlib
import json
import logging as python_logging
import operator
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from absl import app, flags, logging
from ml_collections import ConfigDict

from metalora_jax.commands import recipes
from metalora_jax.machine import interrupts

# A KeyError of ml_collections, whose text is quoted once or twice: an unknown field, and perhaps the one that is meant.
_UNKNOWN = re.compile(r"""["'\\]*(\w+)["'\\]+n?\s*(?:Did you mean "(\w+)" instead of "\w+"\?)?["'\\]*""")
_INTERRUPTED = "interrupted; finished work is kept, and the same command goes on from there"
# What a config file raises arrives as the last line of a traceback.
_RAISED = re.compile(r"(?:\w+\.)*\w+(?:Error|Exception): ")
_NONE = re.compile(r"--?config\.([\w.]+)=None")


def launch(name: str) -> None:
    """Runs the command `metalora_jax.commands.NAME`; --help shows its documentation and its flags."""
    with interrupts.end_at_once():
        module = importlib.import_module(f"{__package__}.{name}")
    for flag in flags.FLAGS.get_key_flags_for_module(module):
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)
    sys.modules["__main__"].__doc__ = module.__doc__
    parts = (getattr(module, part, None) for part in ("config", "check", "default_config"))
    run(module.main, *parts)


def run(
    main: Callable[[list[str]], None],
    config: Callable[[], Mapping[str, Any]] | None = None,
    check: Callable[[Mapping[str, Any]], object] | None = None,
    default_config: str | None = None,
) -> None:
    """`absl.app.run`, with errors that a user can fix shown as one line; `--verbosity=1` shows the traceback.

    A binary with a flag `--config` also gets `--print_config`, which shows the flag's value, or, where a binary
    makes its config of several flags, what `config` returns. `check` then refuses it as the command itself would.
    `default_config` is read where no `--config` is given: as a default of the flag itself, it would be read, and what
    overrides it refused with a traceback, while the binary is imported.
    """
    if default_config is not None and not any(word.lstrip("-").split("=")[0] == "config" for word in sys.argv[1:]):
        sys.argv.insert(1, f"--config={default_config}")
    interrupts.install()
    shown = None
    if "config" in flags.FLAGS:
        shown = flags.DEFINE_bool("print_config", False, "Print the config, overrides included, and do nothing else.")

    def parse(argv: list[str]) -> list[str]:
        try:
            return _parsed(recipes.resolve(argv))
        except flags.Error as error:
            # All flags are read, and one that is required is missing: to show the config, none but its own are needed.
            if shown is not None and flags.FLAGS.is_parsed() and shown.value:
                return argv[:1]
            sys.exit(f"error: {_last_line(error)}  (--help lists the flags)")
        except (
            AttributeError,
            KeyError,
            OSError,
            TypeError,
            ValueError,
        ) as error:  # of an override that the config refuses
            sys.exit(f"error: --config: {_last_line(error)}  (--print_config shows the fields)")

    def show() -> None:
        if config is None and flags.FLAGS.config is None:
            raise ValueError("no config to print: --config=...")
        values = config() if config else flags.FLAGS.config.to_dict()
        print("\n".join(_lines(values)), flush=True)
        if check is not None:
            check(values)

    def guarded(argv: list[str]) -> None:
        try:
            if shown is not None and shown.value:
                show()
            else:
                main(argv)
            return
        except KeyboardInterrupt:
            message = _INTERRUPTED
        except (ValueError, TypeError, OSError, ArithmeticError, RuntimeError, ImportError) as error:
            if logging.get_verbosity() >= logging.DEBUG:
                raise
            message = f"error: {error}  (--verbosity=1 shows where)"
        # Not in the handlers: absl would keep the traceback, and with it a renderer, until OpenGL has been shut down.
        sys.exit(message)

    # Several processes share a GPU here (arms are trained side by side): none may take its memory in advance.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    # JAX reports at length, at level INFO, the accelerators that a machine does not have.
    python_logging.getLogger("jax._src.xla_bridge").setLevel(python_logging.WARNING)
    from metalora_jax.machine import caches  # and JAX, which `launch` is to import

    caches.keep_compiled()
    try:
        app.run(guarded, flags_parser=parse)
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)


def _parsed(words: Sequence[str]) -> list[str]:
    """`flags.FLAGS`, and `--config.conditions=None`: ml_collections cannot parse None where there is a section."""
    none = [match[1].split(".") for word in words if (match := _NONE.fullmatch(word))]
    sys.argv = [word for word in words if not _NONE.fullmatch(word)]  # where config flags look for overrides, too
    try:
        return flags.FLAGS(sys.argv)
    finally:
        if flags.FLAGS.is_parsed():
            for *above, field in none:
                _set_to_none(functools.reduce(operator.getitem, above, flags.FLAGS.config), field)


def _set_to_none(section: ConfigDict, field: str) -> None:
    if field not in section:
        raise AttributeError(f"no field {field}; known: {', '.join(section)}")
    with section.unlocked(), section.ignore_type():
        section[field] = None


def _last_line(error: Exception) -> str:
    """What went wrong: absl puts the traceback of a config file that cannot be read ahead of it."""
    if error.args and isinstance(error.args[0], KeyError):  # what an attribute error of a config is about
        error = error.args[0]
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    if isinstance(error, KeyError) and (unknown := _UNKNOWN.fullmatch(text)):
        return f"no field {unknown[1]!r}" + (f"; did you mean {unknown[2]}?" if unknown[2] else "")
    return _RAISED.sub("", (text.strip().splitlines() or [type(error).__name__])[-1].strip(), 1)


def _lines(config: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    """YAML, a line for each field."""
    for key, value in config.items():
        name = key if key.isidentifier() else json.dumps(key)
        if isinstance(value, Mapping) and value:
            yield f"{indent}{name}:"
            yield from _lines(value, indent + "  ")
        else:
            yield f"{indent}{name}: {json.dumps(value)}"
