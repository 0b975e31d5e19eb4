"""Adapts a policy to a new task or deployment from one to five demonstrations, and ends with an adapter directory.

    metalora adapt --adapter=runs/conditions/adapter --demos=drawer-open_demo.hdf5 --output=runs/drawer

The adapter to start from is one that `meta_train.py` made, or a directory of peft's (then with --optimizer=adam and a
--learning_rate, since only a meta-learned one brings rates of its own). --placement=plan starts from fresh LoRA, on any
base.

The demonstrations are an HDF5 file in LIBERO's layout; or, with --task, a directory of such files, a LeRobot dataset or
an RLDS dataset of TFDS.

--variants=4 learns from each frame in four variants: itself, and three that are cropped, moved and coloured (see
`data.augment`). With --paraphrases=configs/paraphrases/metaworld.json, those three are reworded, too.

The cameras are those that the adapter was learned with, by name, unless --cameras says otherwise. Cameras, joints and
rate of the demonstrations are held against those that it was learned with, as far as base and adapter record them.

Before it begins, demonstrations are held against the base and against each other, and what looks wrong is logged: other
units or scales, one joint in other units than the rest, or mirrored in some demonstrations, idle ends (which
--trim_idle leaves out), switches in another convention, grippers beyond their range, two kinds of motion.

--held_out_episodes=last:2 keeps the task's last two episodes out (or the dataset's own numbers, 3,7; or every:10): the
adapter is the one of the step that does best on them, and --patience=3 stops after three looks without a better one. At
the end the adapted policy is held against standing still, on those episodes or on the next one of the dataset.

--replay=PATH names demonstrations of earlier tasks, one of each, whose frames are added to every minibatch, besides
those of the new task, so that the adapted policy can still do them.

--only_for_its_instruction leaves every other instruction to the base, which acts as if there were no adapter, bit by
bit: tasks of other words lose nothing. A task whose words are those of the demonstrations gets the adapter.
"""

from pathlib import Path

from absl import flags, logging

from metalora_jax.adaptation import adapter
from metalora_jax.adaptation import base as bases
from metalora_jax.adaptation.base import Base
from metalora_jax.adaptation.conventions import doubts
from metalora_jax.data import instructions, sources, support, widths
from metalora_jax.data.augment import ImageAugmentation
from metalora_jax.data.plausibility import left_out, refuse_idle, trimmed
from metalora_jax.data.sources import embodiment as embodiments
from metalora_jax.data.sources.embodiment import Embodiment
from metalora_jax.data.support import Wanted
from metalora_jax.evaluation.offline import closing
from metalora_jax.training.adapt import FEW_FRAMES, FRAMES, Options, adapt
from metalora_jax.training.metrics import Sink, tensorboard_sink, wandb_sink
from metalora_jax.types import Demo

_DEFAULT = Options()
_ADAPTER = flags.DEFINE_string("adapter", "", "Adapter directory to start from; empty: the one in the package.")
_PLACEMENT = flags.DEFINE_string(
    "placement",
    "",
    "In place of --adapter: fresh LoRA, placed by a preset of the policy's family, such as plan or expert. It has no "
    "rates of its own: --optimizer=adam, and hundreds of steps.",
)
_DEMOS = flags.DEFINE_string("demos", None, "Demonstrations: an HDF5 file, or a dataset's directory.", required=True)
_TASK = flags.DEFINE_string("task", "", "The task's name or instruction; optional if there is only one.")
_KEYS = flags.DEFINE_list("keys", [], "camera=FEATURE, state=FEATURE or action=FEATURE, of a dataset with other names.")
_DROP = flags.DEFINE_list("drop", [], "Demonstrations not to read, by the dataset's own numbers: 3,7; or task:3.")
_SKIP_BAD = flags.DEFINE_bool("skip_bad", False, "Leave out demonstrations that cannot be used, and say which.")
_OUTPUT = flags.DEFINE_string("output", None, "Directory to write the adapter to.", required=True)
_BASE = flags.DEFINE_string("base", "", "Base directory; empty is the nano SmolVLA in the package.")
_SHOTS = flags.DEFINE_integer("shots", 1, "Number of demonstrations; the first ones are used.", lower_bound=1)
_CAMERAS = flags.DEFINE_list("cameras", [], "Cameras, in the order of the base; empty: those of the adapter.")
_OPTIMIZER = flags.DEFINE_string("optimizer", _DEFAULT.optimizer, "learned, sgd or adam.")
_LEARNING_RATE = flags.DEFINE_float(
    "learning_rate", _DEFAULT.learning_rate, "Of sgd and adam; a factor on learned rates; above 0."
)
flags.register_validator("learning_rate", lambda rate: rate > 0, "it must be a number above 0")
_STEPS = flags.DEFINE_integer(
    "steps",
    None,
    f"Gradient steps; default: those that the adapter learned with, else {_DEFAULT.steps}.",
    lower_bound=1,
)
_FRAMES = flags.DEFINE_integer(
    "frames", None, f"Frames in each step; default: {FRAMES}, or {FEW_FRAMES} where the base is large.", lower_bound=1
)
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
_HELD_OUT = flags.DEFINE_list("held_out_episodes", [], "Episodes not to learn from: 3,7 or 40-49, last:2, every:10.")
_VALIDATE_EVERY = flags.DEFINE_integer(
    "validate_every", None, "Steps between two looks at held-out episodes; default: a tenth of all.", lower_bound=1
)
_PATIENCE = flags.DEFINE_integer("patience", 0, "Looks without a better one that end it; 0: never.", lower_bound=0)
_TENSORBOARD = flags.DEFINE_string(
    "tensorboard", "", "Directory for TensorBoard events of the looks: losses and errors."
)
_WANDB = flags.DEFINE_string("wandb", "", "Also send the looks to this Weights & Biases project.")
_REPLAY = flags.DEFINE_string("replay", "", "Demonstrations of earlier tasks that must not be forgotten.")
_REPLAY_FRAMES = flags.DEFINE_integer("replay_frames", 32, "Frames of earlier tasks in each step.", lower_bound=1)
_ONLY_FOR = flags.DEFINE_bool(
    "only_for_its_instruction",
    False,
    "Use the adapter under the demonstrations' instruction alone; else the base acts.",
)
_SEED = flags.DEFINE_integer("seed", _DEFAULT.seed, "Seed of minibatches, flow noise and variants.")


def _start(base: Base) -> adapter.Start:
    if not _PLACEMENT.value:
        return adapter.load(_ADAPTER.value or None, base)
    if _ADAPTER.value:
        raise ValueError("--adapter brings its own placement; leave out --placement, or --adapter")
    return adapter.fresh(base, base.family.preset(_PLACEMENT.value), _SEED.value)


def _earlier(wanted: Wanted, instruction: str, known: Embodiment) -> dict[str, list[Demo]]:
    source = sources.open(_REPLAY.value, wanted.cameras, wanted.keys, skip_bad=wanted.skip_bad)
    support.hold(source, known)
    found = sources.read(source, source.names(), 1)
    others = {task: demos for task, demos in found.items() if demos[0].instruction != instruction}
    if not others:
        raise ValueError(
            f"--replay={_REPLAY.value} holds no other task than {instruction!r}, so nothing would be replayed; name "
            "demonstrations of earlier tasks, or leave it out"
        )
    return others


def _sinks(output: Path) -> list[Sink]:
    made: list[Sink] = []
    if (_TENSORBOARD.value or _WANDB.value) and not _HELD_OUT.value:
        raise ValueError("--tensorboard and --wandb show the looks at held-out episodes: name --held_out_episodes")
    if _TENSORBOARD.value:
        made.append(tensorboard_sink(_TENSORBOARD.value))
    if _WANDB.value:
        made.append(wandb_sink(_WANDB.value, output.name, {"demos": _DEMOS.value}, output.parent))
    return made


def main(_: list[str]) -> None:
    output = Path(_OUTPUT.value)
    if output.exists():
        raise ValueError(f"{output} exists; choose another --output")
    sinks = _sinks(output)
    base = bases.load(_BASE.value or None)
    start = _start(base)
    keys = sources.read_keys(_KEYS.value)
    known = start.embodiment
    cameras = tuple(_CAMERAS.value) or sources.choose_cameras(_DEMOS.value, known.cameras, keys)
    wanted = Wanted(
        *(_DEMOS.value, cameras, keys, _TASK.value, _SHOTS.value, _HELD_OUT.value),
        drop=_DROP.value,
        episodes=_EPISODES.value,
        skip_bad=_SKIP_BAD.value,
    )
    read = support.read(wanted, known)
    demos = read.demos
    if _PARAPHRASES.value:
        [demos] = instructions.paraphrased({read.task: demos}, instructions.read(Path(_PARAPHRASES.value))).values()
    widths.check({demos[0].instruction: demos}, base.statistics, base.sizes)
    refuse_idle(demos, base.statistics.of_commands(), "leave it out, or record it again")
    if _TRIM_IDLE.value:
        whole, demos = demos, [trimmed(demo, base.statistics.of_commands()) for demo in demos]
        print(f"idle ends:      {left_out(whole, demos)}")
    robot = read.robot.measured(demos)
    found = doubts(base, demos, predictions=_CONVENTIONS.value)
    for doubt in [*embodiments.check_units(robot, known, "the adapter"), *found]:
        logging.warning("%s", doubt)
    steps = _STEPS.value or start.inner_steps or _DEFAULT.steps
    options = _DEFAULT._replace(
        optimizer=_OPTIMIZER.value,
        learning_rate=_LEARNING_RATE.value,
        steps=steps,
        frames=_FRAMES.value or (FEW_FRAMES if base.large else FRAMES),
        seed=_SEED.value,
        replay_frames=_REPLAY_FRAMES.value if _REPLAY.value else 0,
        validate_every=(_VALIDATE_EVERY.value or max(1, steps // 10)) if _HELD_OUT.value else 0,
        patience=_PATIENCE.value,
        data_frames=_DATA_FRAMES.value,
    )
    augment = ImageAugmentation(variants=_VARIANTS.value, seed=_SEED.value)
    earlier = _earlier(wanted, demos[0].instruction, known) if _REPLAY.value else None
    result = adapt(base, start, demos, options, augment, earlier, read.unseen if _HELD_OUT.value else (), sinks)
    recipe = {
        "from": start.digest,
        "preset": _PLACEMENT.value,
        "base": _BASE.value,
        "demos": _DEMOS.value,
        "task": _TASK.value,
        "instruction": demos[0].instruction,
        "cameras": cameras,
        "shots": _SHOTS.value,
        "drop": _DROP.value,
        "skip_bad": _SKIP_BAD.value,
        "episodes": read.episodes,
        "held_out_episodes": _HELD_OUT.value,
        "validation": [each._asdict() for each in result.validation],
        **options._replace(fast=start.head)._asdict(),
        "augment": augment._asdict(),
        "paraphrases": demos[0].paraphrases,
        "trim_idle": _TRIM_IDLE.value,
        "replay": sorted(earlier or ()),
    }
    robot = robot.over(known)
    only_for = instructions.wordings(demos) if _ONLY_FOR.value else None
    adapted = {"theta": result.theta}
    adapter.save(output, base, start.placement, adapted, config=recipe, embodiment=robot, only_for=only_for)
    read = read._replace(demos=demos)
    print("\n".join(closing.lines(read, start, result, steps, len(earlier or ()), _OUTPUT.value)))
    if only_for is not None:
        print(f"only for:       {', '.join(map(repr, only_for))}; under other instructions the base acts")
    print(closing.against_standing_still(base, result, read))
