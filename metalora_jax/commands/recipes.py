"""Recipes by name: `--config=own_robot` is configs/own_robot.py of the installed package, wherever it is run."""

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path

import metalora_jax


def folder() -> Path:
    """Where the recipes lie: inside an installed wheel, or beside the package in a clone."""
    package = Path(metalora_jax.__file__).parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def resolve(argv: Sequence[str]) -> list[str]:
    """`argv` with the name of a recipe in `--config=NAME:CHOICE` or `--config NAME:CHOICE` replaced by its path.

    Raises:
      ValueError: No recipe has that name. A value that is a path (with a slash or .py) is left as it is.
    """
    return list(_resolved(argv))


def _resolved(argv: Sequence[str]) -> Iterator[str]:
    follows = False
    for word in argv:
        name = word.lstrip("-")
        if follows:
            yield _path(word)
        elif word.startswith("-") and name.startswith("config="):
            yield f"--config={_path(name.removeprefix('config='))}"
        else:
            yield word
        follows = word in ("-config", "--config")


def _path(value: str) -> str:
    name, colon, choice = value.partition(":")
    if not name or "/" in name or "\\" in name or name.endswith(".py"):
        return value
    names = sorted(path.stem for path in folder().glob("*.py") if path.stem != "common")
    if name not in names:
        near = difflib.get_close_matches(name, names, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}; a file's path ends in .py"
        raise ValueError(f"no recipe is called {name!r}; {hint}")
    return f"{folder() / name}.py{colon}{choice}"
