"""Makes a base from a public policy, with its own normalisation statistics or those of your training demonstrations.

    metalora convert --policy=lerobot/smolvla_base --demos='runs/demos/clean/*.hdf5' --output=runs/base

Everything else then takes the result as `--base` or `config.base`. A policy that was fine-tuned on one data set brings
its own statistics: omit --demos to keep them. lerobot/smolvla_base has none that are used. Statistics are computed in
the modes that the policy normalises by (mean and deviation, smallest and largest value, or quantiles).

openpi's checkpoints of pi0 and pi0.5 are directories with params/ and assets/. Their weights do not tell the length of
a chunk and of the prompt, nor whether pi0.5 reads its state: say what differs from openpi's defaults.

    metalora convert --policy=checkpoints/pi05_libero --tokenizer=paligemma_tokenizer.model --horizon=10 \\
        --nodiscrete_state_input --output=runs/base

One that was trained with LoRA becomes a base and, with --adapter_output, an adapter on it, which compute the same.

A policy that predicts actions relative to the state, as openpi's with DeltaActions do, needs to be told so:
--relative_actions names those dimensions of an action, by number or name, or is all_but_gripper. Statistics are then
computed of the differences, and whatever runs the base sends absolute commands.

The base records the names of cameras and joints, the rate and the units of the demonstrations. Whatever it is used on
later is held against them. Data in HDF5 name no joints, and seldom a rate: say them with --joints and --fps.
"""

import dataclasses
import difflib
import glob
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from absl import flags, logging
from flax import nnx

from metalora_jax import trees
from metalora_jax.adaptation import adapter as adapters
from metalora_jax.adaptation import base as bases
from metalora_jax.adaptation.base import Base
from metalora_jax.data import plausibility, relative, sources
from metalora_jax.data.sources import embodiment as embodiments
from metalora_jax.data.sources.embodiment import Embodiment, recorded_cameras
from metalora_jax.data.sources.names import part_of
from metalora_jax.fields import meant
from metalora_jax.machine.progress import progress
from metalora_jax.policies.pi0 import openpi_checkpoint, openpi_lora
from metalora_jax.types import Demo
from metalora_jax.words import plural

_ALMOST = 0.85  # likeness from which a camera's name is taken for a slip in one of the family's

Number = TypeVar("Number", int, float)

_POLICY = flags.DEFINE_string(
    "policy", None, "Policy: a directory of lerobot's or openpi's, or lerobot's name on the hub.", required=True
)
_OUTPUT = flags.DEFINE_string("output", None, "Directory to write the base to.", required=True)
_DEMOS = flags.DEFINE_string(
    "demos", "", "HDF5 files or dataset directories of training tasks, by pattern; or owner/name@revision on the hub."
)
_CAMERAS = flags.DEFINE_list(
    "cameras",
    [],
    "The demonstrations' cameras, in the order of the base; empty: the policy's, else the dataset's. Without "
    "--demos: what the robot calls them.",
)
_KEYS = flags.DEFINE_list("keys", [], "camera=FEATURE, state=FEATURE or action=FEATURE, of a dataset with other names.")
_DROP = flags.DEFINE_list("drop", [], "Demonstrations not to read, by the dataset's own numbers: 3,7; or task:3.")
_SKIP_BAD = flags.DEFINE_bool("skip_bad", False, "Leave out demonstrations that cannot be used, and say which.")
_JOINTS = flags.DEFINE_list("joints", [], "Names of the dimensions of state and action, where the data have none.")
_FPS = flags.DEFINE_float("fps", None, "Frames per second, where the data do not say.")
_TOKENIZER = flags.DEFINE_string(
    "tokenizer", None, "tokenizer.json, or openpi's paligemma_tokenizer.model, if it is in no place of its own."
)
_ABSOLUTE = flags.DEFINE_bool(
    "absolute_actions", False, "The policy was trained on absolute actions, whatever its own statistics look like."
)
_RELATIVE = flags.DEFINE_list(
    "relative_actions",
    [],
    "Dimensions of an action that the policy predicts relative to the state at the chunk's start, by number or name "
    "(0,1,2), or all_but_gripper; empty: none, or as a base says.",
)
_OF_DIFFERENCES = flags.DEFINE_bool(
    "relative_of_differences", False, "Those were recorded as differences already, as openpi's pi0_libero has them."
)
_ASSET = flags.DEFINE_string("asset", "", "Whose statistics to take, of a policy that has several: openpi's asset id.")
_WIDTHS = flags.DEFINE_list(
    "widths", [], "Dimensions of the robot's state and action, 14,14, where the policy's own statistics have more."
)
_HORIZON = flags.DEFINE_integer("horizon", None, "Actions in a chunk, of openpi's checkpoints; else 50.")
_MAX_TOKENS = flags.DEFINE_integer("max_tokens", None, "Length of the prompt, of openpi's; else 48, pi0.5's 200.")
_CUT = flags.DEFINE_bool(
    "cut_prompts", None, "Cut prompts beyond max_tokens at the end, as openpi does, and say so; else they are an error."
)
_STATE_INPUT = flags.DEFINE_bool("discrete_state_input", None, "Whether openpi's pi0.5 reads its state; else it does.")
_ADAPTER = flags.DEFINE_string("adapter_output", None, "Directory to write the adapter to, of openpi's with LoRA.")
_ALPHA = flags.DEFINE_list(
    "lora_alpha", [], "LoRA's alpha, of the decoder and of the action expert: 16,32. Else the rank, as openpi has it."
)
_RSLORA = flags.DEFINE_bool("lora_rslora", False, "LoRA was scaled by alpha / sqrt(rank).")
_DTYPE = flags.DEFINE_enum("param_dtype", "float32", ["float32", "bfloat16"], "Type of weights on disk and in memory.")


def _demonstrations() -> tuple[dict[str, list[Demo]], Embodiment]:
    """By task; and the robot that recorded them."""
    paths = sorted(glob.glob(_DEMOS.value)) or [str(sources.local(_DEMOS.value))]
    if not Path(paths[0]).exists():
        raise ValueError(f"no file matches --demos={_DEMOS.value}")
    keys = sources.read_keys(_KEYS.value)
    vectors = {part: feature for part, feature in keys.items() if part in ("state", "action")}
    found: dict[str, list[Demo]] = defaultdict(list)
    robots = []
    for path in progress(paths, description="reading demonstrations"):
        source = sources.open(path, (), vectors, drop=_DROP.value, skip_bad=_SKIP_BAD.value)
        robots.append(dataclasses.replace(source.embodiment, cameras=_cameras(path, keys)))
        for task in source.names():
            found[task] += source.demos(task)
    if not found:
        raise ValueError(f"no demonstration of --demos={_DEMOS.value} is left to compute statistics of")
    robot, doubts = embodiments.common(robots)
    for doubt in doubts:
        logging.warning("%s", doubt)
    return found, _told(robot, next(iter(found.values()))[0])


def _told(robot: Embodiment, demo: Demo) -> Embodiment:
    """With the joints and the rate that are named on the command line, which must not contradict the data."""
    joints, fps = tuple(_JOINTS.value), _FPS.value
    for kind, known, values in (("state", robot.state, demo.state), ("action", robot.action, demo.actions)):
        if joints and len(joints) != values.shape[1]:
            raise ValueError(f"--joints names {len(joints)} dimensions, {kind} has {values.shape[1]} in {_DEMOS.value}")
        if joints and known not in (None, joints):
            raise ValueError(f"--joints: {_DEMOS.value} calls those of {kind} {', '.join(known or ())}; leave it out")
    if fps is not None and fps <= 0:
        raise ValueError(f"--fps={fps:g}: expected a positive number")
    if fps is not None and robot.fps not in (None, fps):
        raise ValueError(f"--fps={fps:g}, but {_DEMOS.value} has {robot.fps:g} frames a second; leave it out")
    return dataclasses.replace(
        robot, state=joints or robot.state, action=joints or robot.action, fps=fps if fps is not None else robot.fps
    )


def _cameras(path: str, keys: Mapping[str, str]) -> tuple[str, ...] | None:
    """The data's names of the cameras that --cameras names, or of all; pictures and videos are not looked at."""
    there = sources.cameras_of(path, keys)
    asked = [camera if camera in there else part_of(camera) for camera in _CAMERAS.value] or list(there)
    if there and (missing := [camera for camera in asked if camera not in there]):
        raise ValueError(
            f"{path}: no camera {missing[0]!r}, there are {', '.join(there)}{meant(missing[0], there)}; see --cameras"
        )
    return recorded_cameras(asked, there) or None


def _with_cameras(base: Base, there: Sequence[str] | None) -> Base:
    """With the cameras of the demonstrations, unless the policy's own are among them and none were asked for."""
    own, asked = base.embodiment.cameras, bool(_CAMERAS.value)
    if not there or (own and not asked and {*map(part_of, own)} <= {*map(part_of, there)}):
        return base
    if len(there) > base.sizes.cameras:
        what = f"{plural(len(there), 'camera')} ({', '.join(there)}), and the policy takes {base.sizes.cameras}"
        if asked:
            raise ValueError(f"--cameras names {what}; leave some out")
        logging.warning("the demonstrations have %s: none are recorded; name those to use with --cameras", what)
        return base
    for doubt in embodiments.check(Embodiment(tuple(there)), Embodiment(own), "the policy"):
        logging.warning("%s", doubt)
    return base._replace(embodiment=dataclasses.replace(base.embodiment, cameras=tuple(there)))


def _named(base: Base) -> Base:
    """With the cameras that --cameras names, where no demonstration says what there is.

    Raises:
      ValueError: they are more than the policy has, or one is named twice; a name is all but one of the family's own;
        or those are in another order, by which the policy tells them apart.
    """
    names, known = tuple(_CAMERAS.value), base.family.cameras
    if len(names) > base.sizes.cameras:
        raise ValueError(
            f"--cameras names {plural(len(names), 'camera')} ({', '.join(names)}), and the policy takes "
            f"{base.sizes.cameras}; leave some out"
        )
    if len(set(names)) < len(names):
        raise ValueError(f"--cameras names {max(names, key=names.count)} twice; name each once")
    for name in names:
        if name not in known and (near := difflib.get_close_matches(name, known, 1, _ALMOST)):
            raise ValueError(
                f"--cameras: {base.family.type} has no camera {name!r}, there are {', '.join(known)}; did you mean "
                f"{near[0]}?"
            )
    own = [name for name in names if name in known]
    if own != (ordered := sorted(own, key=known.index)):
        raise ValueError(f"--cameras: a policy tells cameras apart by their order; name them so: {','.join(ordered)}")
    return base._replace(embodiment=dataclasses.replace(base.embodiment, cameras=names))


def _of_openpi() -> dict[str, Any]:
    """What the flags say of openpi's checkpoints.

    Raises:
      ValueError: the policy is none of them.
    """
    said: dict[str, Any] = {
        "horizon": _HORIZON.value,
        "max_tokens": _MAX_TOKENS.value,
        "cut_prompts": _CUT.value,
        "discrete_state_input": _STATE_INPUT.value,
    }
    if _ALPHA.value:
        said["lora_alpha"] = dict(zip(openpi_lora.EXPERTS, _two("lora_alpha", _ALPHA.value, float), strict=True))
    said["lora_rslora"] = _RSLORA.value or None
    given = {name: value for name, value in said.items() if value is not None}
    if (given or _ADAPTER.value) and not openpi_checkpoint.is_checkpoint(Path(_POLICY.value)):
        name = next(iter(given), "adapter_output")
        raise ValueError(f"--{name} is for openpi's checkpoints, and {_POLICY.value} has no params/; leave it out")
    return given


def _two(name: str, values: Sequence[str], kind: Callable[[str], Number]) -> tuple[Number, Number]:
    try:
        first, second = map(kind, values)
    except ValueError:
        raise ValueError(f"--{name}={','.join(values)}: expected two numbers, such as 16,32") from None
    return first, second


def main(_: list[str]) -> None:
    output = Path(_OUTPUT.value)
    if output.exists():
        raise ValueError(f"{output} exists; choose another --output")
    if (_JOINTS.value or _FPS.value is not None) and not _DEMOS.value:
        raise ValueError("--joints and --fps say of --demos what these do not: name --demos, or leave them out")
    if _ADAPTER.value and Path(_ADAPTER.value).exists():
        raise ValueError(f"{_ADAPTER.value} exists; choose another --adapter_output")
    if _DEMOS.value and (_ASSET.value or _WIDTHS.value):
        raise ValueError("--asset and --widths are for the policy's own statistics, --demos gives others; omit either")
    overrides = _of_openpi()
    demos, robot = _demonstrations() if _DEMOS.value else ({}, Embodiment())
    every = [demo for recorded in demos.values() for demo in recorded]
    given = (
        _POLICY.value,
        every,
        _TOKENIZER.value,
        dataclasses.replace(robot, cameras=None),
        _ABSOLUTE.value,
        _ASSET.value,
        _two("widths", _WIDTHS.value, int) if _WIDTHS.value else None,
        _RELATIVE.value,
        _OF_DIFFERENCES.value,
    )
    overrides["param_dtype"] = _DTYPE.value
    if _ADAPTER.value:
        base, source, placement, theta = bases.convert_with_adapter(*given, **overrides)
    else:
        base, source = bases.convert(*given, **overrides)
    base = _with_cameras(base, robot.cameras) if _DEMOS.value or not _CAMERAS.value else _named(base)
    for task, recorded in demos.items():
        for doubt in plausibility.doubts(recorded):
            logging.warning("%s: %s", task, doubt)
    bases.save(output, base)
    if _ADAPTER.value:
        adapters.save(_ADAPTER.value, base, placement, {"theta": theta}, config={"openpi": _POLICY.value})
    config, sizes = base.config, base.sizes
    print(f"parameters:  {trees.count(nnx.to_pure_dict(nnx.state(base.model)))} in {config.param_dtype}")
    print(f"sees:        {plural(sizes.cameras, 'camera')} of {sizes.image} px, {sizes.tokens} tokens")
    print(f"statistics:  {source}{f' in {_DEMOS.value}' if demos else ''}")
    print(f"state:       {len(base.statistics.state_mean)} of {sizes.state} dimensions in use")
    print(f"action:      {len(base.statistics.action_mean)} of {sizes.action}, chunks of {sizes.chunk}")
    robot, known = base.embodiment, base.statistics
    print(f"predicts:    {relative.said(known.relative, known.of_differences, robot.action or ())}")
    print(f"cameras:     {', '.join(robot.cameras or ()) or 'not known; name them with --cameras'}")
    print(f"joints:      {', '.join(robot.action or ()) or 'not named in the data; --joints names them'}")
    print(f"rate:        {'not known; say it with --fps' if robot.fps is None else f'{robot.fps:g} frames per second'}")
    print(f"fingerprint: {base.fingerprint}")
    print(f"base:        {output}")
    if _ADAPTER.value:
        print(f"adapter:     {_ADAPTER.value}, {trees.count(theta)} parameters")
