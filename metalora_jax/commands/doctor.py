"""Checks a set-up and demonstrations before any training, and ends with a short list of what is wrong.

    metalora doctor --demos=PATH_TO/my_dataset --output=runs/doctor
    metalora doctor --world=libero --demos='runs/demos/*.hdf5'
    metalora doctor --demos=PATH_TO/my_dataset --base=runs/base --fail_on=warning --json=findings.json

Without --world, the data decide whether they come from a known benchmark; a robot of one's own is checked without a
simulator. Without --demos it checks the installation alone. The exit status is 1 if there is a finding as bad as
--fail_on, else 0. A page with a strip of pictures and curves for every episode goes to --output.
"""

import sys
from pathlib import Path

from absl import flags

from metalora_jax.envs.world import WORLDS
from metalora_jax.evaluation.doctor import choice, page
from metalora_jax.evaluation.doctor.findings import SEVERITIES, failing
from metalora_jax.evaluation.doctor.run import Request, examine
from metalora_jax.machine import files

_DEFAULT = Request(choice.AUTO)
_WORLD = flags.DEFINE_enum(
    "world", _DEFAULT.world, (choice.AUTO, choice.NONE, *WORLDS), "The simulator; none for a robot without one."
)
_DEMOS = flags.DEFINE_list("demos", [], "HDF5 files, directories, patterns, LeRobot or TFDS data sets.")
_TASK = flags.DEFINE_string("task", "", "Task of all demonstrations, if neither file nor instruction names it.")
_CAMERAS = flags.DEFINE_list("cameras", [], "Cameras to check, in the order of the base; default: all.")
_KEYS = flags.DEFINE_list("keys", [], "camera=FEATURE, state=FEATURE or action=FEATURE, of a dataset with other names.")
_BASE = flags.DEFINE_string("base", None, "Base directory to compare with; 'nano' is the one in the package.")
_STATISTICS = flags.DEFINE_string("statistics", "", "JSON file: ours, or LeRobot's, openpi's, OpenVLA's.")
_REPLAYS = flags.DEFINE_integer("replays", _DEFAULT.replays, "Demonstrations to replay from each file.", lower_bound=0)
_FAIL_ON = flags.DEFINE_enum("fail_on", "error", (*SEVERITIES, "never"), "The least finding that fails: exit status 1.")
_JSON = flags.DEFINE_string("json", "", "File for all findings and the episodes to drop, for programs.")
_OUTPUT = flags.DEFINE_string("output", "runs/doctor", "Directory for the page and its pictures.")


def main(_: list[str]) -> None:
    request = Request(
        world=_WORLD.value,
        demos=tuple(_DEMOS.value),
        cameras=tuple(_CAMERAS.value),
        keys=dict(pair.split("=", 1) for pair in _KEYS.value),
        task=_TASK.value,
        base="" if _BASE.value == "nano" else _BASE.value,
        statistics=_STATISTICS.value,
        replays=_REPLAYS.value,
    )
    results = []
    for result in examine(request):
        results.append(result)
        print(page.line(result.outcome), flush=True)
    outcomes = [result.outcome for result in results]
    written = page.write(Path(_OUTPUT.value), results)
    if _JSON.value:
        files.write_json(Path(_JSON.value), page.as_json(results), indent=2)
    print(f"\n{page.summary(outcomes)}\n")
    print(f"to look at: {written[0]}")
    sys.exit(1 if failing(outcomes, _FAIL_ON.value) else 0)
