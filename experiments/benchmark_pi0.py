"""Times LoRA steps on pi0 side by side with openpi's own training step, at pi0's widths and a part of its depth.

    make openpi OPENPI=path/to/openpi
    python experiments/benchmark_pi0.py --openpi=.venv-openpi/bin/python --output=runs/benchmark_pi0

openpi's is `train_step` of its scripts/train.py under its config pi0_libero_low_mem_finetune, as it is, and with the
vision tower frozen too. All run by turns on the same frames, each in a process of its own, with random weights, frozen
ones stored in bfloat16 as openpi has them, in float32 arithmetic on the CPU. `--table` makes the table of figures anew.
"""

import contextlib
import json
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from absl import flags

sys.path.insert(0, str(Path(__file__).parent.parent))  # for the peer's client
from experiments.peer.client import Peer
from metalora_jax.commands import start
from metalora_jax.evaluation.benchmarks import beside_openpi
from metalora_jax.machine.progress import progress
from metalora_jax.policies.pi0.config import Pi0Config

CONFIG = "pi0_libero_low_mem_finetune"
_OPENPI = flags.DEFINE_string("openpi", "", "Interpreter of openpi's environment, see `make openpi`.")
_OUTPUT = flags.DEFINE_string("output", None, "Directory for the raw figures and the table.", required=True)
_TABLE = flags.DEFINE_bool("table", False, "Measure nothing: make the table of raw figures that are there.")
_LAYERS = flags.DEFINE_integer("layers", 4, "Layers of Gemma; pi0 has 18.", 1, 18)
_VISION = flags.DEFINE_integer("vision_layers", 6, "Layers of SigLIP; pi0 has 27.", 1, 27)
_FRAMES = flags.DEFINE_integer("frames", 1, "Frames of a step.", 1)
_VOCABULARY = flags.DEFINE_integer("vocabulary", 2048, "Rows of the token table; pi0's has 257152.", 16)
_REPEATS = flags.DEFINE_integer("repeats", 3, "Rounds; in each, every step runs once.", 1)


def main(_: list[str]) -> None:
    output = Path(_OUTPUT.value)
    file = output / "raw_pi0.json"
    if not _TABLE.value:
        if not _OPENPI.value:
            raise ValueError("--openpi is not given: the interpreter of openpi's environment, which make openpi makes")
        output.mkdir(parents=True, exist_ok=True)
        _measure(file)
    text = beside_openpi.table(json.loads(file.read_text()))
    (output / "table_pi0.md").write_text(text)
    print(f"{text}\ntable: {output / 'table_pi0.md'}\nraw figures: {file}")


def _measure(file: Path) -> None:
    sizes = dict(layers=_LAYERS.value, vision_layers=_VISION.value, vocab_size=_VOCABULARY.value)
    sizes |= dict(param_dtype="bfloat16")
    config = Pi0Config.pi0_base(**sizes)
    found: dict[str, Any] = {"sizes": sizes, "frames": _FRAMES.value, "cores": os.cpu_count(), "steps": []}
    ours = {"METALORA_CACHE": "", "PYTHONPATH": str(Path(__file__).parent.parent)}
    with TemporaryDirectory(prefix="metalora-benchmark-") as scratch, contextlib.ExitStack() as running:
        frames = str(Path(scratch, "batch.npz"))
        np.savez(frames, **beside_openpi.batch(config, _FRAMES.value))
        peers: dict[str, Peer] = {}
        with progress(description="steps") as bar:
            for side in beside_openpi.SIDES:
                own = side in beside_openpi.OURS
                python, script = (sys.executable, "pi0_peer.py") if own else (_OPENPI.value, "openpi_peer.py")
                peer = running.enter_context(Peer(python, script, **(ours if own else {})))
                if own:
                    told = peer.prepare(file=frames, **beside_openpi.OURS[side], sizes=sizes)
                else:
                    depth = dict(depth=_LAYERS.value)
                    gemma = {"gemma_2b": depth, "gemma_300m": depth}
                    peer.resize(gemma_sizes=gemma, vision=dict(depth=_VISION.value), vocabulary=_VOCABULARY.value)
                    model = {"dtype": "float32"}
                    frozen = side == "openpi_frozen_vision"
                    told = peer.prepare(config=CONFIG, file=frames, frozen_vision=frozen, model=model)
                found[side], peers[side] = told, peer
                file.write_text(json.dumps(found, indent=1) + "\n")
                bar.update()
            for _ in range(_REPEATS.value):
                for side, peer in peers.items():
                    for work in ("warm", "cold") if side in beside_openpi.OURS else ("step",):
                        figures = peer.timed(work=work)
                        found["steps"].append({"side": side, "work": work, "load": os.getloadavg()[0], **figures})
                        file.write_text(json.dumps(found, indent=1) + "\n")
                        bar.update()


if __name__ == "__main__":
    start.run(main)
