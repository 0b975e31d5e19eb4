"""Adapters on a base: fresh, read whatever their format, probed, and saved."""

import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from flax import nnx

from metalora_jax import trees
from metalora_jax.adaptation import features
from metalora_jax.adaptation.base import Base
from metalora_jax.adaptation.learner import Learner, learner, outline
from metalora_jax.adapters import Placement, directory, peft_format
from metalora_jax.adapters.placement import from_json as rules_from
from metalora_jax.adapters.placement import to_json as rules_of
from metalora_jax.data.sources.embodiment import UNKNOWN, Embodiment, recorded_cameras
from metalora_jax.policies import registry, stages
from metalora_jax.types import Observation, PyTree

NANO = Path(__file__).parents[1] / "policies" / "smolvla" / "nano_adapter"


NOTHING = 1e-7  # share of an output that is rounding in float32: an adapter that changes it by less does nothing


class Start(NamedTuple):
    """What adaptation starts from: an adapter on a base."""

    learner: Learner  # its theta is that of meta_params
    placement: Placement
    meta_params: PyTree  # {"theta": ...} and, where they were learned, {"log_rates": ...}
    digest: str  # of meta_params
    head: tuple[str, ...] | None  # leaf paths that its inner loop moves, where it was learned with ANIL
    data: str | None = None  # digest of the demonstrations that it was learned from, where that is known
    embodiment: Embodiment = UNKNOWN  # of the robot that it was learned on: its own record, else the base's
    inner_steps: int | None = None  # that its learned rates are for, where that is known


def fresh(base: Base, placement: Placement, seed: int = 0) -> Start:
    """New adapters on `base`, such as LoRA from scratch.

    Raises:
      ValueError: if a rule of the placement matches nothing, see `adapters.attach`.
    """
    start = learner(base, placement, jax.random.key(seed))
    meta_params = {"theta": start.theta}
    return Start(start, placement, meta_params, trees.digest(meta_params), None, embodiment=base.embodiment)


def load(path: str | Path | None, base: Base) -> Start:
    """Reads an adapter directory for `base`: ours, or peft's.

    peft's files do not say which weights they were learned on; that is logged, since it cannot be checked.

    Args:
      path: where it is; None is the meta-learned adapter in the package, which fits the base in the package alone.
      base: what it is to run on.

    Raises:
      directory.AdapterError: it does not fit, see `directory.load`.
      ValueError: peft's files are damaged, hold more than plain LoRA, or have other widths than the base.
    """
    if path is None:
        _check_nano(base)
    path = NANO if path is None else Path(path)
    if (path / peft_format.CONFIG).is_file():
        return _of_peft(path, base)
    manifest = directory.read_manifest(path)
    rules = rules_from(manifest["placement"])
    learn = outline(base, rules)
    adapter = directory.load(path, base_fingerprint=base.fingerprint, probe=probe(base, learn).run)
    head = manifest["config"].get("meta", {}).get("head")
    fast = None if head is None else tuple(head)
    start = learn.replace(theta=adapter.theta["theta"], only_for=_only_for(path, manifest.get("only_for")))
    known = _embodiment(path, manifest).over(base.embodiment)
    inner_steps = manifest["config"].get("meta", {}).get("inner_steps")
    return Start(start, rules, adapter.theta, manifest["tree_digest"], fast, manifest.get("data"), known, inner_steps)


def _only_for(path: Path, instructions: Any) -> tuple[str, ...] | None:
    """The instructions that an adapter is for alone, checked; None for all."""
    if instructions is None:
        return None
    texts = instructions if isinstance(instructions, list | tuple) else ()
    if not texts or not all(isinstance(text, str) for text in texts):
        raise directory.AdapterError(
            f"{path}: only_for is {instructions!r}; name the instructions that the adapter is for, or give None"
        )
    return tuple(texts)


def _embodiment(path: Path, manifest: Mapping[str, Any]) -> Embodiment:
    """What a manifest records; of one without a record, the cameras of its recipe."""
    if "embodiment" in manifest:
        try:
            return Embodiment.from_json(manifest["embodiment"])
        except ValueError as error:
            raise directory.AdapterError(f"{path}: {error}; save the adapter again") from None
    data = manifest["config"].get("data")
    if not isinstance(data, Mapping) or not data.get("cameras"):
        return UNKNOWN
    return Embodiment(recorded_cameras(data["cameras"], data.get("keys")))


def manifest_of(path: str | Path) -> dict[str, Any] | None:
    """What an adapter directory says about itself; None for peft's files of other origin.

    Raises:
      ValueError: it is damaged.
    """
    return (peft_format if (Path(path) / peft_format.CONFIG).is_file() else directory).read_manifest(path)


def save(
    path: str | Path,
    base: Base,
    placement: Placement,
    meta_params: PyTree,
    *,
    config: Mapping[str, Any],
    data: str | None = None,
    embodiment: Embodiment = UNKNOWN,
    only_for: Sequence[str] | None = None,
    overwrite: bool = False,
) -> None:
    """Writes an adapter directory that `load` reads, on `base` alone.

    Args:
      path: the directory to make; its parent is made where it is missing.
      base: what the adapter was learned on.
      placement: the rules that it was attached by.
      meta_params: {"theta": ...} and, where they were learned, {"log_rates": ...}.
      config: JSON, the recipe.
      data: digest of the demonstrations that it was learned from, see `data.content`; None if unknown.
      embodiment: of the robot whose demonstrations those were.
      only_for: the instructions under which an `Agent` uses the adapter; under others it acts as the base. None is all.
      overwrite: replace an adapter that is there.

    Raises:
      AdapterError: see `directory.save`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    directory.save(
        path,
        meta_params,
        base_fingerprint=base.fingerprint,
        placement=rules_of(placement),
        normalisation=base.statistics.to_json(),
        config=json.loads(json.dumps(dict(config))),
        probe=probe(base, outline(base, placement)),
        data=data,
        embodiment=embodiment.to_json(),
        only_for=_only_for(path, only_for),
        overwrite=overwrite,
    )


def _check_nano(base: Base) -> None:
    """Says what to do about a base that the adapter in the package was not learned on."""
    wanted = directory.read_manifest(NANO)["base_fingerprint"]
    if wanted != base.fingerprint:
        raise directory.AdapterError(
            f"the adapter in the package fits the nano base in the package ({wanted!r}), this base is "
            f"{base.fingerprint!r}; name an adapter of its own, which metalora meta_train makes, or start from fresh "
            f"LoRA (--placement={registry.of_model(base.model).presets[0]})"
        )


def _of_peft(path: Path, base: Base) -> Start:
    rules, theta = peft_format.read(path, base.family.module_names(base.config))
    learn = outline(base, rules)
    trees.check_same(theta, learn.theta, str(path / peft_format.WEIGHTS))
    logging.warning("%s does not say which weights it was learned on; make sure that they are those of this base", path)
    if dead := base.family.without_effect(theta):
        count = trees.count({name: theta[name] for name in dead})
        logging.warning("%d parameters of %s have no effect: nothing reads %s", count, path, ", ".join(dead))
    meta_params = {"theta": theta}
    digest = trees.digest(meta_params)
    return Start(learn.replace(theta=theta), rules, meta_params, digest, None, embodiment=base.embodiment)


def probe(base: Base, learner: Learner) -> directory.Probe:
    """The golden probe of an adapter: the velocity that it gives on a fixed input."""
    sizes = base.sizes
    size = (1, sizes.cameras, sizes.image, sizes.image, 3)
    rng = np.random.default_rng(0)
    images = rng.uniform(-1, 1, size).astype(np.float32)
    tokens = np.arange(sizes.tokens, dtype=np.int32)[None] % sizes.vocabulary
    state = np.zeros((1, sizes.state), np.float32)
    observation = Observation(images, np.ones(size[:2], bool), tokens, np.ones_like(tokens, bool), state)
    x_t = rng.normal(size=(1, sizes.chunk, sizes.action)).astype(np.float32)

    graph, phi = nnx.split(base.model)

    def run(params: PyTree) -> jax.Array:
        # A GPU would answer in TF32, which no CPU would find again; a CPU is exact, and would compile the front twice.
        with nullcontext() if jax.default_backend() == "cpu" else jax.default_matmul_precision("highest"):
            front = features.advanced(phi, observation, graph=graph, stage=learner.stage)
            return _velocity(learner.replace(theta=params["theta"]), front, x_t)

    return directory.Probe("uniform images and normal x_t of numpy's default_rng(0), t = 0.5", run)


def answer(base: Base) -> np.ndarray:
    """What a policy without an adapter gives on the input of `probe`, all of it computed with its own weights."""
    return np.asarray(probe(base, learner(base, (), jax.random.key(0))).run({"theta": {}}))


@jax.jit
def _velocity(learner: Learner, front: PyTree, x_t: np.ndarray) -> jax.Array:
    model = learner.model()
    return model.velocity(stages.context_of(model, front), jnp.asarray(x_t), jnp.array([0.5]))


def effect(before: np.ndarray, after: np.ndarray) -> float:
    """How much an adapter changes an output, as a share of the output itself, both in root mean square."""
    return _rms(after - before) / max(_rms(before), 1e-30)


def rounding(before: np.ndarray, exact: np.ndarray, written: np.ndarray) -> tuple[float, float]:
    """What storing an adapted policy in fewer bits costs.

    Args:
      before: an output of the base; `exact`: of the adapted policy in float32; `written`: of the policy read back.

    Returns:
      The largest deviation of `written` from `exact`, and the same as a share of what the adapter changes, both in root
      mean square: above a few percent the adapter is drowned in rounding.

    Raises:
      ValueError: the adapter changes nothing.
    """
    if not (changed := _rms(before - exact)):
        raise ValueError("the adapter changes nothing, so that there is nothing to lose by rounding")
    return float(np.abs(written - exact).max()), _rms(written - exact) / changed


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values.astype(np.float64)))))
