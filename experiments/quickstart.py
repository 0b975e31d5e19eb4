"""First one scene with the adapter in the package, then the whole workflow from scratch, up to a report.

    make quickstart          (or: python experiments/quickstart.py)

Ctrl-C loses nothing; the same command resumes where it stopped. `metalora scene` is the scene alone.
"""

from pathlib import Path

from absl import flags
from ml_collections import config_flags

from metalora_jax.commands import start
from metalora_jax.envs.collect import collect
from metalora_jax.evaluation.protocol import experiment, films, scene
from metalora_jax.evaluation.protocol.comparison import Comparison
from metalora_jax.evaluation.reports import report
from metalora_jax.machine.forecast import Forecast
from metalora_jax.machine.progress import progress, show_forecast
from metalora_jax.training import checkpoint

_CONFIG = config_flags.DEFINE_config_file("config", None, "Recipe; by default configs/quickstart.py.", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", "runs/quickstart/run", "Directory for adapters, records and the report.")

# What each stage takes on two cores that do nothing else [s]: the processor time of one run, spread over its processes.
# A run refines it as it goes, see `progress`. The bars of a stage begin with its name.
SECONDS = {
    "one scene": 40.0,
    "demonstration files": 42.0,
    "meta-train": 90.0,
    "search of inner rates": 37.0,
    "adaptation, cells": 6.0,
    "episodes": 93.0,
    "films and report": 30.0,
}


def main(_: list[str]) -> None:
    workdir, comparison = Path(_WORKDIR.value), Comparison.from_config(_CONFIG.value.to_dict())
    if comparison.scene is None or comparison.demos is None:
        raise ValueError("the quickstart needs the sections `scene` and `demos`: see configs/quickstart.py")
    checkpoint.claim(workdir, comparison.to_json())
    forecast = Forecast(SECONDS)
    show_forecast(forecast)

    def begin(title: str, *stages: str) -> None:
        print(f"{title}  ({forecast.heading(*stages)})", flush=True)

    begin("1/5  one scene, with the adapter in the package", "one scene")
    if (workdir / scene.GIF).exists():
        print(f"     already done: {workdir / scene.GIF}")
    else:
        scene.first_scene(comparison.scene, comparison.closed_loop, workdir)
    begin("2/5  the comparison: recording scripted demonstrations in the simulator", "demonstration files")
    jobs = comparison.demos.jobs()
    for _ in progress(collect(jobs, comparison.demos.workers), description="demonstration files", total=len(jobs)):
        pass
    begin("3/5  meta-learning from scratch, and the multi-task control on the same data", "meta-train")
    experiment.train(comparison, workdir)
    closed_loop = "search of inner rates", "adaptation, cells", "episodes"
    begin("4/5  adaptation to held-out conditions, then closed-loop episodes", *closed_loop)
    experiment.run(comparison, workdir)
    begin("5/5  films and report", "films and report")
    films.before_and_after(comparison, workdir)
    print(f"raw records: {workdir / 'episodes.jsonl'}\nreport: {report.write_report(workdir)}")
    print(
        "This shift needs no learning: the arm 'Identified yaw' takes no gradient step. It estimates the turn in closed"
    )
    print(
        "form from the demonstration, and turns the frozen base's commands back (docs/results.md). The report compares"
    )
    print(
        "ways to adapt a policy by gradient steps, with that as a level to hold them against; its intervals are wide."
    )


if __name__ == "__main__":
    start.run(main, check=Comparison.from_config, default_config="configs/quickstart.py")
