"""Times gradient steps on SmolVLA at its real size, side by side with lerobot and peft: float32, on this machine's CPU.

    python -m tests.lerobot_directory runs/smolvla_random    (random weights cost what the public ones do)
    make peer
    python experiments/benchmark.py --policy=runs/smolvla_random --peer=.venv-peer/bin/python --output=runs/benchmark

Both do the same work on the same frames, by turns.
"""

import json
import sys
from pathlib import Path

import numpy as np
from absl import flags

sys.path.insert(0, str(Path(__file__).parent.parent))  # for the peer's client
from experiments.peer.client import Peer
from metalora_jax.evaluation import benchmark, benchmark_table
from metalora_jax.policies.smolvla import convert
from metalora_jax.policies.smolvla.presets import preset
from metalora_jax.training import command
from metalora_jax.training.progress import progress

_POLICY = flags.DEFINE_string("policy", None, "lerobot SmolVLA directory.", required=True)
_VLM = flags.DEFINE_string("vlm", "", "Directory with the vision-language model's config.json; empty is <policy>/vlm.")
_PEER = flags.DEFINE_string("peer", None, "Interpreter of lerobot's environment, see `make peer`.", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "Directory for the raw figures and the table.", required=True)
_REPEATS = flags.DEFINE_integer("repeats", 5, "Of each work, alternating with the peer.", lower_bound=1)
_META_REPEATS = flags.DEFINE_integer("meta_repeats", 1, "Of the meta-step, which takes minutes.", lower_bound=0)
_PEER_TASKS = flags.DEFINE_integer("peer_tasks", 4, "Tasks of the peer's meta-step; fewer are scaled up.", 1, 4)


def main(_: list[str]) -> None:
    output = Path(_OUTPUT.value)
    output.mkdir(parents=True, exist_ok=True)
    model = convert.load(_POLICY.value).model
    batch = output / "batch.npz"
    np.savez(batch, **benchmark.batch_arrays(model.config, 2 * benchmark.FRAMES * benchmark.TASKS))
    raw: list[dict] = [{"work": "matmul", "side": "ours", "rate": benchmark.matmul_rate()}]
    with progress(description="pieces of work") as bar:

        def record(placement: str, side: str, work: str, seconds: dict) -> None:
            raw.append({"placement": placement, "side": side, "work": work, **seconds})
            (output / "raw.json").write_text(json.dumps(raw, indent=1) + "\n")
            bar.update()

        for name in ("plan", "expert"):
            work = benchmark.Work(model, preset(name), np.load(batch))
            with Peer(_PEER.value) as peer:
                peer.load(policy=_POLICY.value, vlm=_VLM.value or f"{_POLICY.value}/vlm", lora=benchmark.PEFT[name])
                peer.batch(file=str(batch))
                counts = (_REPEATS.value, _META_REPEATS.value, _PEER_TASKS.value)
                benchmark.alternate(name, work, peer, record, *counts)
                raw.append({"work": "matmul", "side": "peer", "rate": peer.matmul_rate()["rate"]})
    table = benchmark_table.table(raw, benchmark_table.operations(model.config))
    (output / "table.md").write_text(table)
    print(f"{table}\ntable: {output / 'table.md'}\nraw figures: {output / 'raw.json'}")


if __name__ == "__main__":
    command.run(main)
