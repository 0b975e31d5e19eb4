"""An adapter on disk: a directory that says what it fits, and is refused wherever it does not.

    my_adapter/
      adapter.safetensors   theta, one tensor for each leaf, named "<module path>.<leaf>"
      manifest.json         base fingerprint, placement, normalisation, config, versions, hashes, golden probe

Adapters fail silently: a wrong base, a key that does not match, or a transposed matrix still gives actions, only wrong
ones. So a load is all or nothing, and ends with the golden probe: the adapted policy, run on a fixed input, has to give
again what it gave when the adapter was saved.
"""

import hashlib
import importlib.metadata
import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.flax

from metalora_jax import __version__, trees
from metalora_jax.machine import files
from metalora_jax.types import PyTree

FORMAT = 1
_TENSORS, _MANIFEST = "adapter.safetensors", "manifest.json"
_PACKAGES = ("jax", "jaxlib", "flax", "safetensors")
_PROBE_VALUES = 64


class AdapterError(ValueError):
    """An adapter that cannot be trusted here; one line says what is wrong and what to do about it."""


class Contents(NamedTuple):
    """What `load` returns."""

    theta: PyTree  # nested dicts of jax arrays, as given to `save`
    manifest: dict[str, Any]


class Probe(NamedTuple):
    """A fixed question to the adapted policy, whose answer travels with the adapter."""

    description: str  # the input, in words and seeds, such as "nano base, seed 0, t = 0.5"
    run: Callable[[PyTree], Any]  # theta -> array, deterministic
    tolerance: float = 1e-4  # largest deviation allowed on another machine, relative to the largest output


def save(
    path: str | os.PathLike[str],
    theta: PyTree,
    *,
    base_fingerprint: str,
    placement: Any,
    normalisation: Mapping[str, Any],
    config: Mapping[str, Any],
    probe: Probe | None,
    data: str | None = None,
    embodiment: Mapping[str, Any] | None = None,
    only_for: Sequence[str] | None = None,
    overwrite: bool = False,
) -> None:
    """Writes an adapter directory, atomically: readers see the whole old one or the whole new one, after a crash too.

    Args:
      path: the directory to make; its parent must exist.
      theta: nested dicts of arrays; no key holds a ".", which joins them in the file.
      base_fingerprint: digest of phi, the weights that theta was learned on (see `trees.digest`).
      placement: JSON value that rebuilds the adapters around theta.
      normalisation: JSON value, the statistics that theta was learned under.
      config: JSON value, the recipe.
      data: digest of the demonstrations' content that theta was learned from, see `data.content`; None is unknown.
      embodiment: JSON value, names of cameras and joints, rate and units that theta was learned with, where known.
      only_for: the instructions that theta is to be used under; None is all.
      probe: run once here, and again by every `load`; None leaves the adapter without one, and `load` then says so.
      overwrite: replace an existing adapter.

    Raises:
      AdapterError: theta is not finite or cannot be restored from flat names, the probe's output is not finite, or
        `path` exists and `overwrite` is False.
    """
    path = Path(path)
    if not isinstance(config.get("meta", {}), Mapping):
        raise AdapterError(f"config['meta'] is {config['meta']!r}; leave it out, or give a recipe's section")
    if path.exists() and not overwrite:
        raise AdapterError(f"{path} exists; choose another path or pass overwrite=True")
    theta = jax.tree.map(jnp.asarray, theta)
    tensors = _flatten(theta)
    _check_finite(tensors, path)
    payload = safetensors.flax.save(tensors)
    manifest = {
        "format": FORMAT,
        "base_fingerprint": base_fingerprint,
        "placement": placement,
        "normalisation": {"statistics": normalisation, "digest": _json_digest(normalisation)},
        "config": config,
        "data": data,
        "versions": _versions(),
        "files": {_TENSORS: hashlib.sha256(payload).hexdigest()},
        "tree_digest": trees.digest(theta),
        "probe": None if probe is None else _answer(probe, theta),
    }
    if embodiment:
        manifest["embodiment"] = embodiment
    if only_for is not None:
        manifest["only_for"] = list(only_for)
    manifest["manifest_digest"] = _json_digest(manifest)
    with files.atomic_directory(path, overwrite=overwrite) as staging:
        (staging / _TENSORS).write_bytes(payload)
        files.write_json(staging / _MANIFEST, manifest, allow_nan=False)


def _versions() -> dict[str, str]:
    """Of what made an adapter. This package has its own even where it runs from a checkout that nobody installed."""
    others = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {"metalora_jax": __version__, **others, "python": platform.python_version()}


def load(
    path: str | os.PathLike[str],
    *,
    base_fingerprint: str,
    probe: Callable[[PyTree], Any] | None,
    expected_theta: PyTree | None = None,
) -> Contents:
    """Reads an adapter directory; all of it fits, or nothing is returned.

    Args:
      path: the directory that `save` made.
      base_fingerprint: digest of the phi it is to run on.
      probe: the `Probe.run` it was saved with, closed over that phi. None skips the probe, which is for tools that
        never run the policy (format conversion), not for serving or evaluation.
      expected_theta: arrays or ShapeDtypeStructs that theta has to match in paths, shapes and dtypes.

    Raises:
      AdapterError: a file is missing, truncated or altered; the format is unknown; the base is another one; a key is
        missing, unknown, misshapen or not finite; or the probe gives another answer.
    """
    path = Path(path)
    manifest = read_manifest(path)
    if manifest["base_fingerprint"] != base_fingerprint:
        known = manifest["config"].get("base")
        recorded = "" if known is None else f" ({known or 'the nano base in the package'})"
        raise AdapterError(
            f"{path} was learned on base {manifest['base_fingerprint']!r}{recorded}, this policy is "
            f"{base_fingerprint!r}; load that base, or adapt again on this one"
        )
    tensors = _read_tensors(path, manifest["files"])
    _check_finite(tensors, path)
    theta = _unflatten(tensors, str(path / _TENSORS))
    if expected_theta is not None:
        try:
            trees.check_same(theta, expected_theta, str(path / _TENSORS))
        except ValueError as error:
            raise AdapterError(f"{error}; attach with the placement in its {_MANIFEST}") from None
    if trees.digest(theta) != manifest["tree_digest"]:
        raise AdapterError(f"{path / _TENSORS} does not hold the theta of its {_MANIFEST}; copy the adapter again")
    if probe is not None:
        _check_answer(path, manifest["probe"], probe(theta))
    return Contents(theta, manifest)


def read_manifest(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The manifest alone, checked against its own digest and format version; AdapterError where that fails."""
    file = Path(path) / _MANIFEST
    try:
        manifest = json.loads(file.read_text())
        stated = manifest.pop("manifest_digest")
    except OSError as error:
        raise AdapterError(f"{file} cannot be read ({error.strerror}); is this an adapter directory?") from None
    except (ValueError, KeyError, AttributeError, TypeError):
        raise AdapterError(f"{file} is truncated or not a manifest; copy the adapter again") from None
    if manifest.get("format") != FORMAT:
        raise AdapterError(
            f"{file} has format version {manifest.get('format')!r}, this program reads {FORMAT}; "
            f"install the metalora_jax it was saved with: {manifest.get('versions', {}).get('metalora_jax')}"
        )
    if _json_digest(manifest) != stated:
        raise AdapterError(f"{file} was altered after it was saved (digest mismatch); copy the adapter again")
    fields = ("base_fingerprint", "placement", "normalisation", "config", "files", "tree_digest", "probe")
    if missing := [name for name in fields if name not in manifest]:
        raise AdapterError(f"{file} has no {missing[0]!r}: it was not written by `save`; save the adapter again")
    if not isinstance(manifest["config"], dict) or not isinstance(manifest["config"].get("meta", {}), dict):
        raise AdapterError(f"{file}: `config` and its `meta` must be objects; save the adapter again")
    return manifest


def _flatten(theta: PyTree) -> dict[str, jax.Array]:
    """Nested dicts -> {"<keys joined by '.'>": array}; whatever `_unflatten` would not give back is refused."""
    tensors = {jax.tree_util.keystr(p, simple=True, separator="."): x for p, x in jax.tree.leaves_with_path(theta)}
    try:
        trees.check_same(_unflatten(tensors, "theta"), theta, "theta")
    except ValueError as error:
        raise AdapterError(f"{error}; theta must be nested dicts of arrays, none empty, without '.' in keys") from None
    return tensors


def _unflatten(tensors: Mapping[str, jax.Array], source: str) -> PyTree:
    theta: dict[str, Any] = {}
    for name, array in tensors.items():
        *parents, last = name.split(".")
        node = theta
        for key in parents:
            node = node.setdefault(key, {})
            if not isinstance(node, dict):
                raise AdapterError(f"{source}: {name!r} lies below another tensor; save the adapter again")
        node[last] = array
    return theta


def _read_tensors(path: Path, digests: Mapping[str, str]) -> dict[str, jax.Array]:
    file = path / _TENSORS
    if not file.is_file():
        raise AdapterError(f"{file} is missing; copy the whole adapter directory again")
    if hashlib.sha256(file.read_bytes()).hexdigest() != digests[_TENSORS]:
        raise AdapterError(f"{file} is truncated or altered (SHA-256 mismatch); copy the adapter again")
    try:
        return safetensors.flax.load_file(file)
    except safetensors.SafetensorError as error:
        raise AdapterError(f"{file} is not a safetensors file ({error}); save the adapter again") from None


def _check_finite(tensors: Mapping[str, jax.Array], path: Path) -> None:
    for name, array in tensors.items():
        if not bool(jnp.all(jnp.isfinite(array))):
            raise AdapterError(f"{path}: tensor {name!r} holds NaN or infinity; go back to an earlier checkpoint")


def _answer(probe: Probe, theta: PyTree) -> dict[str, Any]:
    output = np.asarray(probe.run(theta), np.float32)
    if not output.size or not np.isfinite(output).all():
        raise AdapterError(f"the golden probe's output is empty or not finite ({probe.description}); check the policy")
    return {
        "description": probe.description,
        "tolerance": probe.tolerance,
        "shape": list(output.shape),
        "digest": hashlib.sha256(output.tobytes()).hexdigest(),
        "largest": float(np.abs(output).max()),
        "values": _spread(output).tolist(),
    }


def _check_answer(path: Path, saved: Mapping[str, Any] | None, output: Any) -> None:
    if saved is None:
        raise AdapterError(f"{path} was saved without a golden probe; save it with one, or pass probe=None knowingly")
    output = np.asarray(output, np.float32)
    if list(output.shape) != saved["shape"]:
        raise AdapterError(f"{path}: the golden probe gives shape {list(output.shape)}, saved was {saved['shape']}")
    if hashlib.sha256(output.tobytes()).hexdigest() == saved["digest"]:
        return
    # Another processor or compiler rounds differently; a wrong adapter is off by far more than that.
    deviation = float(np.abs(_spread(output) - np.asarray(saved["values"], np.float32)).max())
    limit = saved["tolerance"] * saved["largest"]
    if not deviation <= limit:  # so that NaN fails
        raise AdapterError(
            f"{path} acts differently here: golden probe ({saved['description']}) is off by {deviation:.3g}, allowed "
            f"{limit:.3g}; check base, preprocessing and probe, or adapt again"
        )


def _spread(output: np.ndarray) -> np.ndarray:
    """At most `_PROBE_VALUES` values, evenly spread over the flattened output."""
    flat = output.ravel()
    return flat[np.linspace(0, flat.size - 1, min(flat.size, _PROBE_VALUES)).astype(int)]


def _json_digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, allow_nan=False).encode()).hexdigest()
