"""The console script: `metalora adapt --demos=...` runs a command, `metalora` alone lists them."""

import ast
import difflib
import sys
from pathlib import Path

from metalora_jax.commands import start

_NOT_COMMANDS = {"__init__", "__main__", "main", "recipes", "start"}


def summaries() -> dict[str, str]:
    """The first line of each command's documentation, by the command's name; no command is imported for it."""
    modules = sorted(path for path in Path(__file__).parent.glob("*.py") if path.stem not in _NOT_COMMANDS)
    return {path.stem: (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0] for path in modules}


def main() -> None:
    """Runs the command that the first argument names."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    known = summaries()
    if name in ("--help", "-h", "help"):
        width = max(map(len, known))
        print("usage: metalora COMMAND --flag=value ...     (metalora COMMAND --help lists its flags)\n")
        print("\n".join(f"  {command:{width}}  {summary}" for command, summary in known.items()))
        return
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
        sys.exit(f"error: no command {name!r}; {hint}  (metalora --help says what they do)")
    sys.argv = [f"metalora {name}", *sys.argv[2:]]
    start.launch(name)
