"""Asks `lerobot_peer.py` or `openpi_peer.py`, which run in environments of their own."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

PYTHON = "METALORA_PEER"  # environment variable: interpreters of lerobot's environments, with colons between them
VERSIONS = ("0.4.4", "0.6.1")
HOW = f"make peer, then {PYTHON}={':'.join(f'.venv-peer-{version}/bin/python' for version in VERSIONS)}"

OPENPI = "METALORA_OPENPI"  # environment variable: the interpreter of openpi's environment
HOW_OPENPI = f"make openpi OPENPI=PATH_TO_ITS_CHECKOUT, then {OPENPI}=.venv-openpi/bin/python"


def openpi_interpreter() -> str | None:
    """That of openpi's environment, which METALORA_OPENPI names; None where it names none.

    Raises:
      ValueError: openpi is not installed there.
    """
    if not (python := os.environ.get(OPENPI)):
        return None
    if not any(Path(python).parent.parent.glob("lib/python*/site-packages/openpi-*.dist-info")):
        raise ValueError(f"{OPENPI} names {python}, whose environment has no openpi; {HOW_OPENPI}")
    return python


def interpreters() -> dict[str, str]:
    """lerobot's version -> the interpreter of its environment, for those that METALORA_PEER names."""
    found = {}
    for python in filter(None, os.environ.get(PYTHON, "").split(os.pathsep)):
        installed = sorted(Path(python).parent.parent.glob("lib/python*/site-packages/lerobot-*.dist-info"))
        if not installed:
            raise ValueError(f"{PYTHON} names {python}, whose environment has no lerobot; {HOW}")
        found[installed[0].name.split("-")[1].removesuffix(".dist")] = python
    return found


class Peer:
    """A running peer; every method of the script's `Peer` is one of this, with named arguments."""

    def __init__(self, python: str, script: str = "lerobot_peer.py", **environment: str):
        """Starts `script`, which lies beside this file, with more environment variables."""
        self._process = subprocess.Popen(
            [python, Path(__file__).with_name(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "HF_HUB_OFFLINE": "1", **environment},
        )

    def __getattr__(self, name: str) -> Any:
        return lambda **arguments: self._ask({"do": name, **arguments})

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the peer ended with code {self._process.wait()}; its messages stand above")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(f"the peer says: {answer['error']}")
        return answer

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()  # closes its input, at whose end it ends
