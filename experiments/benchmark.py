"""Times gradient steps on SmolVLA at its real size, side by side with lerobot and peft.

    python -m tests.lerobot_directory runs/smolvla_random    (random weights cost what the public ones do)
    make peer
    python experiments/benchmark.py --policy=runs/smolvla_random --output=runs/benchmark \
      --peer=.venv-peer-0.4.4/bin/python

Both do the same work on the same frames, alternating, in float32. On an accelerator, in bfloat16, with the largest
meta-batch that fits: the same command with --dtype=bfloat16 (--peer_device=cuda, or no --peer for ours alone).
"""

import json
import sys
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory

import jax
import numpy as np
from absl import flags

sys.path.insert(0, str(Path(__file__).parent.parent))  # for the peer's client
from experiments.peer.client import Peer
from metalora_jax.commands import start
from metalora_jax.evaluation.benchmarks import benchmark
from metalora_jax.evaluation.benchmarks.peer import PEFT, alternate
from metalora_jax.evaluation.benchmarks.table import table
from metalora_jax.machine.progress import progress

_POLICY = flags.DEFINE_string("policy", None, "lerobot SmolVLA directory.", required=True)
_VLM = flags.DEFINE_string("vlm", "", "Directory with the vision-language model's config.json; empty is <policy>/vlm.")
_PEER = flags.DEFINE_string("peer", "", "Interpreter of lerobot's environment, see `make peer`; empty: ours alone.")
_PEER_DEVICE = flags.DEFINE_string("peer_device", "cpu", "Device of torch.")
_OUTPUT = flags.DEFINE_string("output", None, "Directory for the raw figures and the table.", required=True)
_DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "Of weights and arithmetic; theta: float32.")
_MATMUL = flags.DEFINE_integer("matmul", 2048, "Side of the matrices that the ceiling is measured with.", 64)
_REPEATS = flags.DEFINE_integer("repeats", 5, "Repeats of each work, alternating with the peer.", lower_bound=1)
_META_REPEATS = flags.DEFINE_integer("meta_repeats", 1, "Repeats of the meta-step, which takes minutes.", lower_bound=0)
_PEER_TASKS = flags.DEFINE_integer("peer_tasks", 4, "Tasks of the peer's meta-step; fewer are scaled up.", 1, 4)


def main(_: list[str]) -> None:
    output = Path(_OUTPUT.value)
    output.mkdir(parents=True, exist_ok=True)
    base = benchmark.load(_POLICY.value, dtype=_DTYPE.value, param_dtype=_DTYPE.value)
    placements = {name: base.family.preset(name) for name in PEFT}
    ops = base.family.operations(base.config, benchmark.cameras(base.sizes))
    scratch = TemporaryDirectory(prefix="metalora-benchmark-")
    batch = Path(scratch.name, "batch.npz")
    np.savez(batch, **benchmark.batch_arrays(base.sizes, 2 * benchmark.FRAMES * benchmark.TASKS))
    memory = jax.local_devices()[0].memory_stats() or {}  # None on a CPU
    raw: list[dict] = []
    with progress(description="pieces of work") as bar:

        def record(placement: str, side: str, work: str, figures: dict) -> None:
            raw.append({"placement": placement, "side": side, "work": work, **figures})
            (output / "raw.json").write_text(json.dumps(raw, indent=1) + "\n")
            bar.update()

        def ceiling(side: str, rates: dict) -> None:
            record("", side, "matmul", rates | {"size": _MATMUL.value, "dtype": _DTYPE.value})

        ceiling("ours", benchmark.matmul_rate(_MATMUL.value, _DTYPE.value))
        for name, placement in placements.items():
            work = benchmark.Work(base, placement, np.load(batch))
            with Peer(_PEER.value) if _PEER.value else nullcontext() as peer:
                if peer is not None:
                    vlm = _VLM.value or f"{_POLICY.value}/vlm"
                    peer.load(policy=_POLICY.value, vlm=vlm, lora=PEFT[name], device=_PEER_DEVICE.value)
                    peer.batch(file=str(batch))
                counts = (_REPEATS.value, _META_REPEATS.value, _PEER_TASKS.value)
                alternate(name, work, peer, record, *counts)
                if peer is not None:
                    ceiling("peer", peer.matmul_rate(size=_MATMUL.value))
            if limit := memory.get("bytes_limit"):
                tasks = benchmark.largest(lambda count, work=work: work.meta_step_bytes(count) <= limit)
                record(name, "ours", "largest_meta_batch", {"tasks": tasks})
    clock = "cpu" if jax.default_backend() == "cpu" else "wall"
    text = table(raw, ops, clock)
    (output / "table.md").write_text(text)
    print(f"{text}\ntable: {output / 'table.md'}\nraw figures: {output / 'raw.json'}")


if __name__ == "__main__":
    start.run(main)
