"""Prints the table in docs/doctor.md: which faults in one episode of twelve the doctor names, beside other doctors.

    python -m tests.evaluation.fault_table
    python -m tests.evaluation.fault_table --peers=DIR   # DIR/lerobot-doctor/bin/lerobot-doctor and so on

Each peer sits in an environment of its own below DIR; docs/doctor.md has the commands. All get the same data
set, LeRobot v3.0 with H.264 videos. Any message about the bad episode counts as naming it, unless the tool says the
same of that episode in the sound set. The last row counts what each says of the sound set's episodes.
"""

import argparse
import json
import re
import subprocess
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.evaluation.faults import FAULTS, damaged
from tests.evaluation.faulty_sets import Kind, make_set
from tests.evaluation.written_sets import above_info, examined, write_lerobot

Said = set[tuple[int, str]]  # (episode, what, without its numbers)

KIND = Kind()
SEED = 1
_NUMBERS = re.compile(r"[-+]?\d+(\.\d+)?")


def ours(root: Path) -> Said:
    """What the doctor says above info."""
    found = above_info([result.outcome for result in examined(root)])
    return {(n, _plain(f.what)) for f in found for n in (*f.episodes, int(f.figures.get("other", -1))) if n >= 0}


def lerobot_doctor(program: Path, root: Path) -> Said:
    """Warnings and failures."""
    report = _json(program, "check", root, "--json", "-v")
    messages = [m for check in report.get("checks", []) for m in check["messages"] if m["severity"] in ("WARN", "FAIL")]
    return {(n, _plain(m["message"])) for m in messages for n in _episodes(m["message"])}


def lelint(program: Path, root: Path) -> Said:
    """Everything, information too."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.json"
        _run(program, "check", root, "--json", path)
        findings = json.loads(path.read_text())["findings"] if path.exists() else []
    return {(f["episode"], f["check"]) for f in findings if f["episode"] is not None}


def kalanos(program: Path, root: Path) -> Said:
    """Findings and episodes that need attention, in both of its scopes; not that its evidence is missing."""
    found: Said = set()
    for scope in ("numeric-core-v1", "vision-imitation-v1"):
        text = _run(program, "grade", root, "--no-color", "--tier=full", "--full-frame-scan", f"--profile={scope}")
        for line in text.splitlines():
            if "episode_" in line and "unknown" not in line:
                found |= {(int(n), _plain(line)) for n in re.findall(r"episode_(\d+)", line)}
    return found


def deepen(program: Path, root: Path) -> Said:
    """Each check of an episode that neither passed nor was left out."""
    episodes = _json(program, "grade", root, "--json", "--quiet").get("episodes", [])
    return {
        (int(episode["episode_id"].rpartition("_")[2]), check["check_id"])
        for episode in episodes
        for check in episode["checks"]
        if check["severity"] in ("warn", "warning", "fail", "info")
    }


PEERS: dict[str, tuple[str, Callable[[Path, Path], Said]]] = {
    "lerobot-doctor 0.2.0": ("lerobot-doctor/bin/lerobot-doctor", lerobot_doctor),
    "lerobot-lint 0.1.1": ("lerobot-lint/bin/lelint", lelint),
    "kalanos 0.8.2": ("kalanos/bin/kalanos", kalanos),
    "deepen-grade 0.4.1": ("deepen-grade/bin/deepen", deepen),
}


def table(peers: Path | None, jobs: int) -> list[list[str]]:
    """Rows of cells, the header first; `jobs` sets are examined at a time."""
    tools: dict[str, Callable[[Path], Said]] = {"this doctor": ours}
    for name, (program, ask) in PEERS.items() if peers else ():
        tools[name] = lambda root, ask=ask, program=program: ask(peers / program, root)  # type: ignore[misc]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(jobs) as pool:
        sound = write_lerobot(Path(folder) / "sound" / "set", make_set(KIND, SEED), KIND)
        usual = {name: ask(sound) for name, ask in tools.items()}

        def row(fault: str) -> list[bool]:
            demos, which = damaged(fault, KIND, SEED)
            root = write_lerobot(Path(folder) / fault.replace(" ", "_") / "set", demos, KIND)
            hits = [any(n == which for n, _ in ask(root) - usual[name]) for name, ask in tools.items()]
            print("|", " | ".join([fault, *("yes" * hit for hit in hits)]), "|", flush=True)
            return hits

        rows = list(pool.map(row, FAULTS))
    cells = [[fault, *("yes" * hit for hit in hits)] for fault, hits in zip(FAULTS, rows, strict=True)]
    last = [[f"named, of {len(FAULTS)}", *(str(sum(column)) for column in zip(*rows, strict=True))]]
    last.append(["episodes of a sound set with a finding", *(str(len({n for n, _ in usual[name]})) for name in tools)])
    return [["fault in one episode of twelve", *tools], *cells, *last]


def _run(program: Path, *words: Any) -> str:
    done = subprocess.run([program, *map(str, words)], capture_output=True, text=True, timeout=300)
    return done.stdout


def _json(program: Path, *words: Any) -> dict[str, Any]:
    text = _run(program, *words)
    return json.loads(text[text.index("{") :]) if "{" in text else {}


def _episodes(text: str) -> list[int]:
    """The numbers after the word episode, also in a list."""
    lists = re.findall(r"[Ee]pisodes?[ _#:]*((?:\d+(?:, *)?)+)", text)
    return [int(number) for some in lists for number in re.findall(r"\d+", some)]


def _plain(text: str) -> str:
    return _NUMBERS.sub("#", text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--peers", type=Path)
    parser.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args()
    header, *rows = table(given.peers, given.jobs)
    print()
    for row in (header, ["---"] * len(header), *rows):
        print("|", " | ".join(row), "|")
