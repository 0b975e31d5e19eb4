"""Writes an adapter for other programs: folded into its policy, as peft's files, or to run in JAX inside lerobot.

    metalora export --adapter=runs/drawer --base=runs/base --policy=lerobot/smolvla_base --output=runs/out

`--format=merged` makes a policy directory of its own in the public format that --policy has: lerobot's (1.8 GB in
float32 for SmolVLA), and for pi0 and pi0.5 openpi's, too. `--format=openpi_lora` leaves the weights of a pi0 as they
are, and writes the adapter beside them, for openpi's configs with LoRA. `--format=peft` writes a few megabytes for
lerobot that name --policy as their base.
`--dtype=base` stores each tensor in the type it has in --policy (bfloat16, in the public SmolVLA), and says what that
costs. The adapter may be a directory of peft's.

openpi serves weights in bfloat16, whatever a checkpoint holds: what that takes of the adapter's effect is said, too.
`--asset` is the asset id of the config that is to serve it, where it is not the one in --policy.

The policy takes its pictures by the robot's own names of its cameras, as base and adapter record them. A --policy that
is a directory is named by its path from --output, so that the two can be moved together.

    metalora export --format=lerobot_plugin --adapter=runs/drawer --base=runs/base --output=runs/out

`--format=lerobot_plugin` needs no --policy: lerobot runs base and adapter in JAX, where third_party/
lerobot_policy_metalora is installed. The base is copied into --output, unless --base_name says how to find it there.
"""

import dataclasses
import os
from pathlib import Path
from typing import Literal, TypeVar

import jax
import numpy as np
from absl import flags
from flax import nnx

from metalora_jax import adapters
from metalora_jax.adaptation import adapter, lerobot_policy
from metalora_jax.adaptation import base as bases
from metalora_jax.adaptation.adapter import probe
from metalora_jax.adaptation.learner import outline, zeros
from metalora_jax.adaptation.lerobot_command import lerobot_command
from metalora_jax.data import relative
from metalora_jax.policies import hub

T = TypeVar("T")
_SIZE = (480, 640)  # of pictures, which the plugin expects where the data do not say it; others work, after a moment
DROWNED = 0.05  # share of what the adapter changes that rounding may take, before it is warned of
SERVED = 0.1  # the same, of rounding where the policy is served, which is to be expected and cannot be switched off
_ADAPTER = flags.DEFINE_string("adapter", None, "Adapter directory.", required=True)
_BASE = flags.DEFINE_string("base", None, "The base that the adapter was trained on.", required=True)
_POLICY = flags.DEFINE_string("policy", "", "The public policy that the base was made from; for merged and peft.")
_OUTPUT = flags.DEFINE_string("output", None, "Directory to write to.", required=True)
_FORMAT = flags.DEFINE_enum("format", "merged", ["merged", "openpi_lora", "peft", "lerobot_plugin"], "What to write.")
_DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "base"], "Type of the weights.")
_ASSET = flags.DEFINE_string("asset", "", "openpi's asset id of the statistics; empty: that of --policy.")
_CAMERAS = flags.DEFINE_list("cameras", [], "For lerobot_plugin: cameras, in the base's order; empty: as recorded.")
_PICTURE = flags.DEFINE_list("picture", [], "Height,width of the robot's pictures [px]; empty: those of the data.")
_BASE_NAME = flags.DEFINE_string(
    "base_name", "", "For lerobot_plugin: the base's path from --output, or its name on the hub; empty copies the base."
)


def main(_: list[str]) -> None:
    output, plugin = Path(_OUTPUT.value), _FORMAT.value == "lerobot_plugin"
    if output.exists():
        raise ValueError(f"{output} exists; choose another --output")
    if not plugin and not _POLICY.value:
        raise ValueError(f"--format={_FORMAT.value} needs --policy, the public policy that the base was made from")
    base = bases.load(_BASE.value)
    known = base.statistics
    family = base.family
    start = adapter.load(Path(_ADAPTER.value), base)
    learn, theta = start.learner, start.meta_params["theta"]
    if learn.only_for is not None and not plugin:
        raise ValueError(
            f"{_ADAPTER.value} is only for {' or '.join(map(repr, learn.only_for))}, which --format={_FORMAT.value} "
            "cannot say: use --format=lerobot_plugin, or adapt again without --only_for_its_instruction"
        )
    to_openpi = not plugin and not (hub.local_directory(_POLICY.value) / "config.json").is_file()
    if not plugin and not (to_openpi and _FORMAT.value != "peft" and family.relative_by_config):
        relative.check_exported(known.relative, known.of_differences, _FORMAT.value)
    statistics = {
        "observation.state.mean": known.state_mean,
        "observation.state.std": known.state_std,
        "action.mean": known.action_mean,
        "action.std": known.action_std,
    }
    robot = dataclasses.replace(start.embodiment, picture=_picture() or start.embodiment.picture)
    cameras = robot.cameras
    manifest = adapter.manifest_of(_ADAPTER.value)
    task = ((manifest or {}).get("config") or {}).get("instruction") or "TASK"
    velocity = probe(base, learn).run
    before, exact = (np.asarray(velocity({"theta": each})) for each in (zeros(theta), theta))
    if not (changed := adapter.effect(before, exact)) > adapter.NOTHING:
        raise ValueError(
            f"{_ADAPTER.value} changes nothing that float32 resolves ({100 * changed:.1g} %): the base alone answers "
            "the same; adapt it before exporting"
        )
    print(f"effect:   the adapter changes the velocity on a fixed input by {100 * changed:.3g} % (rms)")
    if plugin:
        seen = _CAMERAS.value or list(cameras or ())
        lerobot_policy.write(output, base, Path(_ADAPTER.value), seen, robot.picture or _SIZE, _BASE_NAME.value)
        print(f"policy:   {output}  (cameras {', '.join(seen)}; base {_BASE_NAME.value or 'inside'})")
        print(lerobot_command(dataclasses.replace(robot, cameras=tuple(seen)), str(output), task))
        if (chunk := base.sizes.chunk) > 1:
            added = " ".join(lerobot_policy.chunking_flags(chunk, max(1, chunk // 3)))
            print(f"          to compute the next chunk while the robot moves, add {added}")
        return
    policy = hub.local_directory(_POLICY.value)
    if _FORMAT.value == "peft":
        name = _POLICY.value if policy != Path(_POLICY.value) else os.path.relpath(policy.resolve(), output.resolve())
        about = statistics, manifest, cameras
        family.export_peft(output, start.placement, theta, base.model, name, policy, *about)
        print(f"peft adapter: {output}  ({adapters.count(theta).total} parameters, base {name})")
        inside = policy == Path(_POLICY.value)  # the base is found from where lerobot runs
        where = "." if inside else str(output)
        print(lerobot_command(robot, where, task, f"cd {output} && " if inside else ""))
        return
    tokenizer = _tokenizer(policy)
    dtype: Literal["float32", "base"] = "base" if _DTYPE.value == "base" else "float32"
    if _FORMAT.value == "openpi_lora":
        family.export_lora(output, start.placement, theta, base.model, policy, statistics, dtype, _ASSET.value)
    else:
        fused = adapters.fuse(learn.model(theta))
        family.export_merged(output, fused, policy, statistics, dtype, cameras, _ASSET.value)
    found = family.load(output, tokenizer, iter, **family.untold(base.config))
    read_back = bases.make(found.model, base.tokenizer, known)
    largest, share = adapter.rounding(before, exact, _answer(read_back, found.adapter))
    print(
        f"rounding: the velocity is off by {largest:.2g} at most, {100 * share:.2g} % of what the adapter changes (rms)"
    )
    if share > DROWNED:
        print(f"          more than {100 * DROWNED:.0f} %: the adapter is drowned in rounding; use --dtype=float32")
    if (kind := family.served_as(output)) is not None:
        start_there = adapter.answer(_rounded(base, kind))
        end_there = _answer(_rounded(read_back, kind), _shortened(found.adapter, kind))
        lost = adapter.rounding(before, exact, before + (end_there - start_there))[1]
        print(f"served:   with weights in {kind}, {100 * lost:.2g} % of what the adapter changes is lost")
        if lost > SERVED:
            print(f"          more than {100 * SERVED:.0f} %: serve it from here, or adapt further before exporting")
    print(f"policy:   {output}")
    if (command := family.serve_command(output, base.config)) is not None:
        print(command)
        if known.relative is not None:
            print(f"          it predicts {relative.said(known.relative, known.of_differences, robot.action or ())}:")
            print("          CONFIG needs DeltaActions and AbsoluteActions of these dimensions")
        return
    print(lerobot_command(robot, str(output), task))


def _answer(base: bases.Base, own: tuple[adapters.Placement, adapters.Theta] | None) -> np.ndarray:
    """As `adapter.answer`, with the adapter that an export holds beside its weights."""
    if own is None:
        return adapter.answer(base)
    placement, theta = own
    return np.asarray(probe(base, outline(base, placement)).run({"theta": theta}))


def _shortened(tree: T, dtype: str) -> T:
    """Arrays rounded to a type, and in their own again; anything else stays."""
    return jax.tree.map(lambda x: x.astype(dtype).astype(x.dtype) if isinstance(x, jax.Array) else x, tree)


def _rounded(base: bases.Base, dtype: str) -> bases.Base:
    """The same policy, its weights rounded."""
    graph, state = nnx.split(base.model)
    return base._replace(model=nnx.merge(graph, _shortened(state, dtype)))


def _picture() -> tuple[int, int] | None:
    if not _PICTURE.value:
        return None
    sides = [int(side) for side in _PICTURE.value if side.isdecimal()]
    if len(sides) != 2 or len(_PICTURE.value) != 2 or 0 in sides:
        raise ValueError(f"--picture={','.join(_PICTURE.value)}: expected height,width in pixels, such as 480,640")
    return sides[0], sides[1]


def _tokenizer(policy: Path) -> Path | None:
    """To read the export back with: the policy's, or the base's; None is where the policy's config says."""
    for place in (policy, Path(_BASE.value)):
        if (place / hub.TOKENIZER).is_file():
            return place / hub.TOKENIZER
    return None
