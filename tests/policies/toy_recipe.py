"""Pretrains the toy: configs/nano_smolvla.py with another policy."""

from pathlib import Path
from runpy import run_path

from ml_collections import ConfigDict

NANO = Path(__file__).parents[2] / "configs" / "nano_smolvla.py"


def get_config() -> ConfigDict:
    config = run_path(str(NANO))["get_config"]()
    config.model = ConfigDict(dict(type="toy", cameras=1, tokens=64, width=12))
    return config
