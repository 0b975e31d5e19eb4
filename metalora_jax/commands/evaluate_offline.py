"""Judges adapters without a simulator: action error on episodes that nobody learned from, beside trivial rivals.

    metalora evaluate_offline --base=runs/base --adapter=runs/cup --demos=PATH_TO/my_dataset \
        --held_out_episodes=last:5 --task="put the cup on the tray" --output=runs/cup_offline

The rivals are standing still, the mean action, the nearest frame of the demonstrations, the base without an adapter
and, with --scratch_steps, LoRA from scratch on the same demonstrations. Several adapters are separated by commas; the
page is about the first. Offline error is no success rate: it finds policies that have learned nothing.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags, logging

from metalora_jax.adaptation import adapter
from metalora_jax.adaptation import base as bases
from metalora_jax.adaptation.adapter import Start
from metalora_jax.adaptation.base import Base
from metalora_jax.adaptation.conventions import quick
from metalora_jax.adaptation.learner import Learner
from metalora_jax.data import content, sources, support
from metalora_jax.data.sources import held_out
from metalora_jax.evaluation.doctor import sets
from metalora_jax.evaluation.offline import measure, page
from metalora_jax.evaluation.offline.measure import Settings
from metalora_jax.evaluation.offline.rivals import ACTIONS
from metalora_jax.evaluation.reports import provenance
from metalora_jax.training.adapt import Options, adapt
from metalora_jax.words import listed

_DEFAULT, _OPTIONS = Settings(), Options()
_BASE = flags.DEFINE_string("base", "", "Base directory; empty is the nano SmolVLA in the package.")
_ADAPTER = flags.DEFINE_list("adapter", [], "Adapter directories; the page is about the first. None: the base alone.")
_DEMOS = flags.DEFINE_string("demos", None, "Demonstrations: an HDF5 file, or a dataset's directory.", required=True)
_TASK = flags.DEFINE_list("task", [], "Tasks, by name or instruction; default: all that there are.")
_HELD_OUT = flags.DEFINE_list(
    "held_out_episodes", None, "Episodes to judge on: 3,7 or 40-49, last:2 (of each task), every:10.", required=True
)
_SHOTS = flags.DEFINE_integer("shots", None, "Demonstrations of each task for the rivals; default: all.", lower_bound=1)
_CAMERAS = flags.DEFINE_list("cameras", [], "Cameras, in the order of the base; empty: those of the first adapter.")
_KEYS = flags.DEFINE_list("keys", [], "camera=FEATURE, state=FEATURE or action=FEATURE, of a dataset with other names.")
_DROP = flags.DEFINE_list("drop", [], "Demonstrations not to read, by the dataset's own numbers: 3,7; or task:3.")
_SKIP_BAD = flags.DEFINE_bool("skip_bad", False, "Leave out demonstrations that cannot be used, and say which.")
_STRIDE = flags.DEFINE_integer("stride", _DEFAULT.stride, "Frames from one to the next.", lower_bound=1)
_SAMPLES = flags.DEFINE_integer("samples", _DEFAULT.samples, "Draws of the flow's noise.", lower_bound=1)
_AHEAD = flags.DEFINE_integer("ahead", None, "Judge only so many steps of each chunk; default: all.", lower_bound=1)
_ACTIONS = flags.DEFINE_enum("actions", _DEFAULT.actions, ACTIONS, "What actions command; auto looks at the data.")
_SEED = flags.DEFINE_integer("seed", _DEFAULT.seed, "Seed of the noise, and of LoRA from scratch.")
_SCRATCH = flags.DEFINE_integer("scratch_steps", 0, "Adam steps of LoRA from scratch; 0 leaves it out.", lower_bound=0)
_RATE = flags.DEFINE_float("scratch_learning_rate", 0.01, "Adam's rate there; above 0.")
flags.register_validator("scratch_learning_rate", lambda rate: rate > 0, "it must be a number above 0")
_OUTPUT = flags.DEFINE_string("output", "runs/offline", "Directory for the page, the figures and the records.")


def main(_: list[str]) -> None:
    if not _HELD_OUT.value:
        raise ValueError("--held_out_episodes is empty: name the episodes to judge on, such as 3,7, last:2 or every:10")
    keys = sources.read_keys(_KEYS.value)
    plain = sources.open(_DEMOS.value, (), _unpictured(keys), drop=_DROP.value, skip_bad=_SKIP_BAD.value)
    tasks = tuple(_TASK.value) or plain.names()
    names = held_out.held_out(plain, tasks, _HELD_OUT.value)
    base = bases.load(_BASE.value or None)
    starts = {path: adapter.load(path, base) for path in _ADAPTER.value}
    robots = {f"the adapter {path}": start.embodiment for path, start in starts.items()}
    robots = robots or {"the base": base.embodiment}
    known = next(iter(robots.values())).cameras
    cameras = tuple(_CAMERAS.value) or sources.choose_cameras(_DEMOS.value, known, keys)
    whole = sources.open(_DEMOS.value, cameras, keys, episodes=names, skip_bad=_SKIP_BAD.value)
    for whose, robot in robots.items():
        support.hold(whole, robot, whose)
    there = {task: whole.find(task) for task in tasks if whole.listing(plain.find(task))}
    read = {task: list(whole.recorded(name)) for task, name in there.items()}
    unseen = {task: [demo for _, demo in found] for task, found in read.items()}
    drop = (*_DROP.value, *names)
    rest = sources.open(_DEMOS.value, (), _unpictured(keys), drop=drop, skip_bad=_SKIP_BAD.value)
    training = sources.read(rest, tuple(unseen), _SHOTS.value)
    for doubt in quick(base, {task: [*unseen[task], *training[task]] for task in unseen}):
        logging.warning("%s", doubt)
    settings = Settings(_STRIDE.value, None, _SAMPLES.value, _AHEAD.value, _SEED.value, _ACTIONS.value)
    policies: dict[str, Learner | None] = {path: start.learner for path, start in starts.items()}
    labels = {path: f"Adapter {path}" for path in starts}
    if _SCRATCH.value:
        policies["scratch"] = _from_scratch(base, next(iter(starts.values()), None), tuple(unseen), drop, cameras, keys)
        labels["scratch"] = f"LoRA from scratch, {_SCRATCH.value} steps"
    policies["base"], labels["base"] = None, "Base without adapter"
    joints = sets.layout(sources.local(_DEMOS.value), cameras, keys).action
    result = measure.evaluate(base, policies, unseen, training, settings, joints)
    config = {
        "base": _BASE.value,
        "adapter": list(starts),
        "demos": _DEMOS.value,
        "tasks": list(unseen),
        "held_out_episodes": list(names),
        "drop": _DROP.value,
        "shots": _SHOTS.value,
        "cameras": cameras,
        "keys": keys,
        **settings._asdict(),
        "scratch_steps": _SCRATCH.value,
        "scratch_learning_rate": _RATE.value,
    }
    data = {"test": content.digest(unseen), "training": content.digest(training)}
    common = provenance.inputs(config, base.fingerprint, _BASE.value, base.statistics.digest(), data)
    inputs = {name: common._replace(adapter=starts[name].digest if name in starts else None) for name in policies}
    idle = _idle(result, starts)
    request = page.Request(
        labels,
        [f"episode {held_out.name(whole, episode)}" for found in read.values() for episode, _ in found],
        inputs,
        config,
        [
            *(f"{path} changes nothing here: it predicts what the base alone does; was it adapted?" for path in idle),
            *(said for path in starts for said in _overlaps(path, names)),
        ],
    )
    for said in request.cautions:
        print(f"caution: {said}")
    written = page.write(Path(_OUTPUT.value), result, request)
    for name in result.errors:
        print(f"{_shown(labels, name):32} {result.in_units(name):8.4g}  {result.scaled(name).mean():8.3f}")
    print(f"{'':32} {'units':>8}  {'standard deviations':>8}")
    if idle and len(idle) == len(starts):  # no verdict: it would be on the base
        raise ValueError(f"{listed(idle)} changed nothing, so that no adapter was judged; {written} is about the base")
    print(measure.verdict(result, next(iter(labels)), next(iter(labels.values()))))
    print(f"raw records: {Path(_OUTPUT.value) / page.RECORDS}")
    print(f"to look at: {written}")


def _unpictured(keys: Mapping[str, str]) -> dict[str, str]:
    return {part: feature for part, feature in keys.items() if part in ("state", "action")}


def _shown(labels: Mapping[str, str], name: str) -> str:
    return labels.get(name) or measure.rivals.NAMES[name]


def _from_scratch(
    base: Base,
    like: Start | None,
    tasks: Sequence[str],
    drop: Sequence[int | str],
    cameras: Sequence[str],
    keys: dict[str, str],
) -> Learner:
    """LoRA from scratch, where the first adapter has its own."""
    if like is None or len(tasks) != 1:
        raise ValueError("--scratch_steps adapts like the first --adapter, to one --task: name both")
    source = sources.open(_DEMOS.value, cameras, keys, drop=drop, skip_bad=_SKIP_BAD.value)
    demos = list(source.demos(tasks[0], _SHOTS.value))
    options = _OPTIONS._replace(optimizer="adam", learning_rate=_RATE.value, steps=_SCRATCH.value, seed=_SEED.value)
    return adapt(base, adapter.fresh(base, like.placement, _SEED.value), demos, options).learner


def _idle(result: measure.Offline, adapters: Iterable[str]) -> list[str]:
    """Adapters that do nothing: what is measured of them is the base."""
    plain = result.predictions["base"].quiet
    return [p for p in adapters if not adapter.effect(plain, result.predictions[p].quiet) > adapter.NOTHING]


def _overlaps(path: str, names: Sequence[int | str]) -> list[str]:
    """What an adapter's own manifest says about having learned from the episodes that are to judge it."""
    manifest: Mapping[str, Any] = adapter.manifest_of(path) or {}
    config = manifest.get("config", {})

    def here(path: object) -> bool:
        return isinstance(path, str) and bool(path) and Path(path).resolve() == Path(_DEMOS.value).resolve()

    if here(config.get("demos")):
        if known := [str(name) for name in names if name in config.get("episodes", ())]:
            return [f"{path} has learned from the held-out episode {listed(known)}: its error there says nothing"]
        return []
    data = config.get("data", {})
    if isinstance(data, Mapping) and here(data.get("directory")):
        return [f"{path} was meta-trained on this dataset: make sure that it kept these episodes out"]
    return []
