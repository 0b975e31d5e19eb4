"""Makes a base from a lerobot SmolVLA policy, with the normalisation statistics of your training demonstrations.

    metalora convert --policy=lerobot/smolvla_base --demos='runs/demos/clean/*.hdf5' --output=runs/base

Everything else then takes the result as `--base` or `config.base`. A policy that was fine-tuned on one data set brings
its own statistics: omit --demos to keep them. lerobot/smolvla_base has none that are used. Statistics are computed in
the modes that the policy normalises by (mean and deviation, smallest and largest value, or quantiles).
"""

import glob
from collections import defaultdict
from pathlib import Path

from absl import flags, logging
from flax import nnx

from metalora_jax import trees
from metalora_jax.adaptation import base as bases
from metalora_jax.data import plausibility, sources
from metalora_jax.machine.progress import progress
from metalora_jax.types import Demo

_POLICY = flags.DEFINE_string("policy", None, "lerobot policy: a directory, or a name on the hub.", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "Directory to write the base to.", required=True)
_DEMOS = flags.DEFINE_string(
    "demos", "", "HDF5 files or dataset directories of training tasks, by pattern; or owner/name@revision on the hub."
)
_KEYS = flags.DEFINE_list("keys", [], "state=FEATURE, action=FEATURE, of a dataset with other names.")
_DROP = flags.DEFINE_list("drop", [], "Demonstrations not to read, by the dataset's own numbers: 3,7; or task:3.")
_SKIP_BAD = flags.DEFINE_bool("skip_bad", False, "Leave out demonstrations that cannot be used, and say which.")
_TOKENIZER = flags.DEFINE_string("tokenizer", None, "tokenizer.json, if it is not with the policy or on the hub.")
_DTYPE = flags.DEFINE_enum("param_dtype", "float32", ["float32", "bfloat16"], "Type of weights on disk and in memory.")


def _demonstrations() -> dict[str, list[Demo]]:
    paths = sorted(glob.glob(_DEMOS.value)) or [str(sources.local(_DEMOS.value))]
    if not Path(paths[0]).exists():
        raise ValueError(f"no file matches --demos={_DEMOS.value}")
    keys = sources.read_keys(_KEYS.value)
    found: dict[str, list[Demo]] = defaultdict(list)
    for path in progress(paths, description="reading demonstrations"):
        source = sources.open(path, (), keys, drop=_DROP.value, skip_bad=_SKIP_BAD.value)
        for task in source.names():
            found[task] += source.demos(task)
    return found


def main(_: list[str]) -> None:
    output = Path(_OUTPUT.value)
    if output.exists():
        raise ValueError(f"{output} exists; choose another --output")
    demos = _demonstrations() if _DEMOS.value else {}
    every = [demo for recorded in demos.values() for demo in recorded]
    base, source = bases.convert(_POLICY.value, every, _TOKENIZER.value, param_dtype=_DTYPE.value)
    for task, recorded in demos.items():
        for doubt in plausibility.doubts(recorded):
            logging.warning("%s: %s", task, doubt)
    bases.save(output, base)
    config, sizes = base.config, base.sizes
    print(f"parameters:  {trees.count(nnx.to_pure_dict(nnx.state(base.model)))} in {config.param_dtype}")
    print(f"sees:        {sizes.cameras} cameras of {sizes.image} px, {sizes.tokens} tokens")
    print(f"statistics:  {source}{f' in {_DEMOS.value}' if demos else ''}")
    print(f"state:       {len(base.statistics.state_mean)} of {sizes.state} dimensions in use")
    print(f"action:      {len(base.statistics.action_mean)} of {sizes.action}, chunks of {sizes.chunk}")
    print(f"fingerprint: {base.fingerprint}")
    print(f"base:        {output}")
