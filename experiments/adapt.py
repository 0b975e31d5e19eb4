"""Adapts a policy to a new task or deployment from one to five demonstrations, and ends with an adapter directory.

    python experiments/adapt.py --adapter=runs/conditions/adapter --demos=drawer-open_demo.hdf5 --output=runs/drawer

The adapter to start from is one that `meta_train.py` made, or a directory of peft's (then with --optimizer=adam and a
--learning_rate, since only a meta-learned one brings rates of its own). The demonstrations are an HDF5 file in LIBERO's
layout; or, with --task, a directory of such files, a LeRobot dataset or an RLDS dataset of TFDS.

--variants=4 learns from each frame in four variants: itself, and three that are cropped, moved and coloured (see
`data.augment`). With --paraphrases=configs/paraphrases/metaworld.json, those three are reworded, too.

Before it begins, demonstrations are held against the base and against each other, and what looks wrong is logged: other
units or scales, idle ends (which --trim_idle leaves out), switches in another convention, two kinds of motion.

--replay=PATH names demonstrations of earlier tasks, one of each, whose frames are added to every minibatch, besides
those of the new task, so that the adapted policy can still do them.
"""

from pathlib import Path

from absl import flags, logging

from metalora_jax.adaptation import adapter
from metalora_jax.adaptation import base as bases
from metalora_jax.adaptation.conventions import doubts
from metalora_jax.adapters import count
from metalora_jax.data import instructions, sources, widths
from metalora_jax.data.augment import ImageAugmentation
from metalora_jax.data.plausibility import refuse_idle, trimmed
from metalora_jax.training import command
from metalora_jax.training.adapt import HOLD_OUT, JUDGED, Adapted, Options, adapt
from metalora_jax.types import Demo
from metalora_jax.words import listed

_DEFAULT = Options()
_ADAPTER = flags.DEFINE_string("adapter", "", "Adapter directory to start from; empty: the one in the package.")
_DEMOS = flags.DEFINE_string("demos", None, "Demonstrations: an HDF5 file, or a dataset's directory.", required=True)
_TASK = flags.DEFINE_string("task", "", "The task's name or instruction; optional if there is only one.")
_KEYS = flags.DEFINE_list("keys", [], "camera=FEATURE, state=FEATURE or action=FEATURE, of a dataset with other names.")
_DROP = flags.DEFINE_list("drop", [], "Demonstrations not to read, by the dataset's own numbers: 3,7; or task:3.")
_SKIP_BAD = flags.DEFINE_bool("skip_bad", False, "Leave out demonstrations that cannot be used, and say which.")
_OUTPUT = flags.DEFINE_string("output", None, "Directory to write the adapter to.", required=True)
_BASE = flags.DEFINE_string("base", "", "Base directory; empty is the nano SmolVLA in the package.")
_SHOTS = flags.DEFINE_integer("shots", 1, "Number of demonstrations; the first ones are used.", lower_bound=1)
_CAMERAS = flags.DEFINE_list("cameras", ["agentview"], "Cameras, in the order of the base.")
_OPTIMIZER = flags.DEFINE_string("optimizer", _DEFAULT.optimizer, "learned, sgd or adam.")
_LEARNING_RATE = flags.DEFINE_float(
    "learning_rate", _DEFAULT.learning_rate, "Of sgd and adam; a factor on learned rates.", lower_bound=0.0
)
_STEPS = flags.DEFINE_integer("steps", _DEFAULT.steps, "Gradient steps.", lower_bound=1)
_FRAMES = flags.DEFINE_integer("frames", _DEFAULT.frames, "Frames in each step.", lower_bound=1)
_DATA_FRAMES = flags.DEFINE_integer(
    "data_frames", None, "Frames of each demonstration, spread evenly; few make a large base quick. All by default.", 1
)
_EPISODES = flags.DEFINE_list("episodes", None, "The only demonstrations to read, by the dataset's own numbers: 0,4.")
_CONVENTIONS = flags.DEFINE_bool(
    "conventions",
    True,
    "Test whether the base fits turned pictures or a reversed gripper better; minutes if it is large.",
)
_VARIANTS = flags.DEFINE_integer("variants", 1, "Variants of each frame; the first is the frame itself.", lower_bound=1)
_PARAPHRASES = flags.DEFINE_string("paraphrases", "", "JSON file with paraphrases of the task, for the variants.")
_TRIM_IDLE = flags.DEFINE_bool("trim_idle", False, "Leave out the frames before the first motion and after the last.")
_REPLAY = flags.DEFINE_string("replay", "", "Demonstrations of earlier tasks that must not be forgotten.")
_REPLAY_FRAMES = flags.DEFINE_integer("replay_frames", 32, "Frames of earlier tasks in each step.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", _DEFAULT.seed, "Seed of minibatches, flow noise and variants.")


def _earlier(instruction: str, keys: dict[str, str]) -> dict[str, list[Demo]]:
    source = sources.open(_REPLAY.value, _CAMERAS.value, keys, skip_bad=_SKIP_BAD.value)
    found = sources.read(source, source.names(), 1)
    return {task: demos for task, demos in found.items() if demos[0].instruction != instruction}


def _demonstrations(keys: dict[str, str]) -> list[Demo]:
    selected = {"episodes": _EPISODES.value, "drop": _DROP.value, "skip_bad": _SKIP_BAD.value}
    source = sources.open(_DEMOS.value, _CAMERAS.value, keys, **selected)
    task = _TASK.value or source.only()
    demos = list(source.demos(task, _SHOTS.value))
    if _PARAPHRASES.value:
        [demos] = instructions.paraphrased({task: demos}, instructions.read(Path(_PARAPHRASES.value))).values()
    return demos


def _report(demos: list[Demo], start: adapter.Start, result: Adapted, earlier: int) -> None:
    learned, kept_back = result.frames
    rows = [
        ("task", demos[0].instruction),
        ("demonstrations", f"{len(demos)}, {learned + kept_back} frames"),
        ("adapted", f"{count(result.theta).total} parameters on {len(start.learner.theta)} maps"),
        ("steps", f"{_STEPS.value} in {result.seconds:.2f} s, excluding compilation"),
        ("support loss", f"{_change(result.support_loss)} on the {learned} frames used for adaptation"),
        ("held-out loss", _held_out(result, kept_back)),
    ]
    if result.unmoved and start.head is None:
        count_, first = len(result.unmoved), listed(result.unmoved)
        rows.insert(3, ("did not move", f"the parameters on {count_} of {len(start.learner.theta)} maps: {first}"))
    if result.replay_loss is not None:
        rows.append(("earlier tasks", f"{_change(result.replay_loss)}, {earlier} of them"))
    rows.append(("", f"(each measured on up to {JUDGED} minibatches, spread over its frames)"))
    rows.append(("adapter", _OUTPUT.value))
    for name, text in rows:
        print(f"{name + ':' if name else '':16}{text}")


def _held_out(result: Adapted, kept_back: int) -> str:
    if result.held_out_loss is None:
        return f"no held-out frames: every {HOLD_OUT}th is kept back, and there are fewer"
    return f"{_change(result.held_out_loss)} on {kept_back} others of the same demonstrations"


def _change(losses: tuple[float, float]) -> str:
    return f"{losses[0]:.3f} -> {losses[1]:.3f}"


def main(_: list[str]) -> None:
    output = Path(_OUTPUT.value)
    if output.exists():
        raise ValueError(f"{output} exists; choose another --output")
    base = bases.load(_BASE.value or None)
    start = adapter.load(_ADAPTER.value or None, base)
    keys = sources.read_keys(_KEYS.value)
    demos = _demonstrations(keys)
    widths.check({demos[0].instruction: demos}, base.statistics, base.sizes)
    refuse_idle(demos, base.statistics, "leave it out, or record it again")
    if _TRIM_IDLE.value:
        demos = [trimmed(demo, base.statistics) for demo in demos]
    for doubt in doubts(base, demos, predictions=_CONVENTIONS.value):
        logging.warning("%s", doubt)
    options = _DEFAULT._replace(
        optimizer=_OPTIMIZER.value,
        learning_rate=_LEARNING_RATE.value,
        steps=_STEPS.value,
        frames=_FRAMES.value,
        seed=_SEED.value,
        replay_frames=_REPLAY_FRAMES.value if _REPLAY.value else 0,
        data_frames=_DATA_FRAMES.value,
    )
    augment = ImageAugmentation(variants=_VARIANTS.value, seed=_SEED.value)
    earlier = _earlier(demos[0].instruction, keys) if _REPLAY.value else None
    result = adapt(base, start, demos, options, augment, earlier)
    recipe = {
        "from": start.digest,
        "demos": _DEMOS.value,
        "task": _TASK.value,
        "shots": _SHOTS.value,
        "episodes": _EPISODES.value,
        "drop": _DROP.value,
        "skip_bad": _SKIP_BAD.value,
        **options._replace(fast=start.head)._asdict(),
        "augment": augment._asdict(),
        "paraphrases": demos[0].paraphrases,
        "trim_idle": _TRIM_IDLE.value,
        "replay": sorted(earlier or ()),
    }
    adapter.save(output, base, start.placement, {"theta": result.theta}, config=recipe)
    _report(demos, start, result, len(earlier or ()))


if __name__ == "__main__":
    command.run(main)
