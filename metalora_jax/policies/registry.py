"""Which families of policies there are, by the `type` in a policy's config.json.

A new family is a module with a `FAMILY`, and a line here. One outside the package is named by METALORA_POLICIES, an
environment variable with the names of such modules, separated by commas; worker processes inherit it.
"""

import importlib
import os
from pathlib import Path

from metalora_jax.machine.files import read_json
from metalora_jax.policies.policy import Family, Policy

PLUGINS = "METALORA_POLICIES"  # environment variable
_MODULES = {
    "smolvla": "metalora_jax.policies.smolvla.family",
    "pi0": "metalora_jax.policies.pi0.family",
    "pi05": "metalora_jax.policies.pi0.family_pi05",
}


def family(type_: str) -> Family:
    """The family of this type.

    Raises:
      ValueError: there is none; the message lists those that there are.
    """
    if type_ in _MODULES:
        return importlib.import_module(_MODULES[type_]).FAMILY
    others = {found.type: found for found in map(_plugin, filter(None, os.environ.get(PLUGINS, "").split(",")))}
    if type_ not in others:
        known = ", ".join((*_MODULES, *others))
        raise ValueError(f"no policy is of type {type_!r}; known: {known}. Name the module of another in {PLUGINS}")
    return others[type_]


def of_model(model: Policy) -> Family:
    """The family of a policy."""
    return family(model.type)


def of_directory(directory: Path) -> Family:
    """The family of the policy in a directory; openpi's have no config.json.

    Raises:
      ValueError: its config.json is missing or names no known type.
    """
    file = directory / "config.json"
    if not file.is_file():
        from metalora_jax.policies.pi0 import openpi_checkpoint  # with what reads it, for those that have one

        if openpi_checkpoint.is_checkpoint(directory):
            return family(openpi_checkpoint.type_of(directory))
        raise ValueError(
            f"{file} is missing; a policy directory holds config.json and the weights, one of openpi's params/"
        )
    values = read_json(file)
    if not isinstance(values.get("type"), str):
        raise ValueError(f'{file} names no policy type; add "type": "smolvla" to it, or the type that it is of')
    try:
        return family(values["type"])
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None


def _plugin(module: str) -> Family:
    try:
        return importlib.import_module(module.strip()).FAMILY
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{PLUGINS} names {module!r}, which is no module with a FAMILY: {error}") from None
    except Exception as error:  # whatever another's module raises
        raise ValueError(f"{PLUGINS} names {module!r}, which raises {type(error).__name__}: {error}") from error
