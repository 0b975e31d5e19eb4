"""The raw record of an evaluation: one JSON line for each episode, written once, never edited.

Every figure and table of a report is computed from these lines alone (see `report`). The log survives a kill at any
moment: an incomplete last line is dropped with a warning when the log is next opened, and its episode is run again.
"""

import dataclasses
import fcntl
import hashlib
import json
import math
import os
import re
import types
import typing
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from absl import logging


class RecordError(ValueError):
    """A record or a log that cannot be trusted: says which line and field, and what to do."""


@dataclasses.dataclass(frozen=True)
class Episode:
    """One rollout of one adapted policy: a JSON object with these fields on a line of the log.

    Fields that are None by default, which only controls set, are optional in a line. All others are required.
    """

    method: str  # the name that figures show
    meta_seed: int  # of the meta-training run the adapter comes from
    distribution: str  # "tasks" (new instructions) or "conditions" (known tasks under a hidden shift)
    split: str  # "train", "validation", "test"; "base": tasks of pretraining, for retention
    task: str
    condition: dict[str, Any]  # deployment shift; {} is the nominal one
    shots: int  # demonstrations adapted on; 0: not adapted
    draw: int  # which draw of `shots` demonstrations
    steps: int  # gradient steps of adaptation
    episode_seed: int  # of the environment's initial state and the policy's noise
    success: bool
    episode_return: float  # sum of rewards; an episode ends at success, so a fast one may have less: not reported
    length: int  # control steps
    adapt_seconds: float  # wall clock of the adaptation, without compilation [s]
    support_loss: float | None  # after adaptation; None when not adapted
    fingerprint: str  # of code, config, adapter, statistics and data: a line of provenance.jsonl (see `provenance`)
    error: str | None  # what ended the episode early; it then counts as a failure
    adapter_on: bool = True  # False: the frozen backbone alone, for retention
    adapted_to: str | None = None  # the task that was adapted to, where it is another one (retention of earlier tasks)
    told: str | None = None  # the instruction, where it is another task's (the wrong-instruction control)
    altered: str | None = None  # which input of the policy was replaced (see `evaluation.alterations`)
    scale: float | None = None  # what adapting changed was multiplied by this; None: it acts as a whole
    gated: bool | None = None  # True: the adapter was for the instruction of `adapted_to` alone; else None
    commands: str | None = None  # digest of what was commanded: equal ones are of policies that acted alike
    identified: str | None = (
        None  # the kind of arm that maps the base's commands instead of taking steps, such as "linear"
    )

    @property
    def key(self) -> tuple:
        """What makes this episode the same one on a second run: everything that was decided before it started."""
        return (*(getattr(self, name) for name in _KEY), canonical(self.condition))


_KEY = (
    *("method", "meta_seed", "distribution", "split", "task", "shots", "draw", "steps", "episode_seed"),
    *("adapter_on", "adapted_to", "told", "altered", "scale", "gated"),
)
_TYPES = typing.get_type_hints(Episode)
_REQUIRED = {field.name for field in dataclasses.fields(Episode) if field.default is not None}


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text. NaN and infinity are refused."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def validate(episode: Episode) -> Episode:
    """The same episode, when every field has its type and range; RecordError naming the field otherwise."""
    for name, kind in _TYPES.items():
        _check_type(name, getattr(episode, name), kind)
    for name in ("shots", "draw", "steps", "length", "adapt_seconds"):
        if getattr(episode, name) < 0:
            raise RecordError(f"field '{name}' is {getattr(episode, name)}; it cannot be negative")
    for name in ("distribution", "split"):
        if not re.fullmatch(r"[\w-]+", getattr(episode, name)):
            raise RecordError(
                f"field '{name}' is {getattr(episode, name)!r}; it names files: use letters, digits, _ and -"
            )
    if episode.shots == 0 and episode.steps > 0:
        raise RecordError(f"field 'steps' is {episode.steps} with 0 shots; there is nothing to take a step on")
    if episode.error is not None and episode.success:
        raise RecordError("field 'success' is true with an error set; an episode that broke is a failure")
    return episode


def to_line(episode: Episode) -> str:
    """The episode as one JSON line, with its newline."""
    return canonical(dataclasses.asdict(validate(episode))) + "\n"


def from_line(line: str) -> Episode:
    """The inverse of `to_line`; RecordError on a missing, unknown or ill-typed field."""
    try:
        fields = json.loads(line)
    except json.JSONDecodeError as error:
        raise RecordError(f"not JSON ({error.msg})") from None
    if not isinstance(fields, dict):
        raise RecordError("not a JSON object")
    missing, unknown = sorted(_REQUIRED - set(fields)), sorted(set(fields) - set(_TYPES))
    if missing or unknown:
        raise RecordError(f"missing fields {missing}, unknown fields {unknown}")
    return validate(Episode(**fields))


def read_episodes(path: str | os.PathLike) -> list[Episode]:
    """All episodes of one log, in the order they were written.

    Raises RecordError naming file and line on an invalid or repeated record. An incomplete last line, as a running or
    killed evaluation leaves behind, is skipped with a warning.
    """
    data = Path(path).read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        logging.warning("%s: skipped an incomplete last line of %d bytes", path, len(data) - whole)
    return list(_parse(path, data[:whole]).values())


def read_run(run_dir: str | os.PathLike) -> list[Episode]:
    """The episodes of every `episodes*.jsonl` in a run directory (one for each worker); repeats are refused."""
    logs = sorted(Path(run_dir).glob("episodes*.jsonl"))
    if not logs:
        raise RecordError(f"{run_dir}: no episodes*.jsonl; give the directory of an evaluation run")
    episodes: dict[tuple, Episode] = {}
    for log in logs:
        for episode in read_episodes(log):
            if episode.key in episodes:
                raise RecordError(f"{log}: repeats an episode of another log, {episode.key}; remove one of the logs")
            episodes[episode.key] = episode
    return list(episodes.values())


class EpisodeLog:
    """An append-only log of episodes, held by one process at a time.

    Opening drops an incomplete last line with a warning and reads the rest, so that a resumed evaluation skips it::

        with EpisodeLog(run_dir / "episodes.jsonl") as log:
            for plan in plans:
                if not log.done(plan.key, plan.fingerprint):
                    log.append(run(plan))
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(self.path, "a+b")  # noqa: SIM115 (closed by close())
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._file.seek(0)
            data = self._file.read()
            self._size = data.rfind(b"\n") + 1
            episodes = _parse(self.path, data[: self._size])
            if self._size < len(data):
                logging.warning(
                    "%s: dropped an incomplete last line of %d bytes; its episode will run again",
                    path,
                    len(data) - self._size,
                )
                self._file.truncate(self._size)
                os.fsync(self._file.fileno())
        except BlockingIOError:
            self._file.close()
            raise RecordError(
                f"{path}: another process is writing this log; give each worker its own episodes-N.jsonl"
            ) from None
        except BaseException:
            self._file.close()
            raise
        self._fingerprints = {key: episode.fingerprint for key, episode in episodes.items()}

    def __len__(self) -> int:
        return len(self._fingerprints)

    def done(self, key: tuple, fingerprint: str) -> bool:
        """Whether the episode is recorded; RecordError when it is, but by other code, config, adapter or statistics."""
        recorded = self._fingerprints.get(key)
        if recorded not in (None, fingerprint):
            raise RecordError(
                f"{self.path}: {key} was recorded under fingerprint {recorded}, this run has {fingerprint}; "
                "provenance.jsonl shows what changed; use a new run directory"
            )
        return recorded is not None

    def append(self, episode: Episode) -> None:
        """Writes one episode through to the disk; RecordError when it is invalid or recorded already."""
        line = to_line(episode).encode()
        if episode.key in self._fingerprints:
            raise RecordError(f"{self.path}: {episode.key} is recorded already; ask done() before running an episode")
        try:
            self._file.write(line)
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError:
            self._file.truncate(self._size)  # a full disk must not leave half a line in front of the next one
            raise
        self._size += len(line)
        self._fingerprints[episode.key] = episode.fingerprint

    def close(self) -> None:
        """Closes the file and lets go of its lock."""
        self._file.close()

    def __enter__(self) -> "EpisodeLog":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def code_digest(root: str | os.PathLike = Path(__file__).parents[2]) -> str:
    """sha256 over the path and text of every Python file below `root`, by default this package."""
    digest = hashlib.sha256()
    for path in sorted(Path(root).rglob("*.py")):
        for part in (path.relative_to(root).as_posix().encode(), path.read_bytes()):
            digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()


def _parse(path: str | os.PathLike, data: bytes) -> dict[tuple, Episode]:
    episodes: dict[tuple, Episode] = {}
    for number, line in enumerate(_lines(path, data), 1):
        try:
            episode = from_line(line)
        except RecordError as error:
            raise RecordError(
                f"{path}:{number}: {error}; the log was edited or damaged, restore it or remove the line"
            ) from None
        if episode.key in episodes:
            raise RecordError(f"{path}:{number}: repeats the episode {episode.key}; remove one of the lines")
        episodes[episode.key] = episode
    return episodes


def _lines(path: str | os.PathLike, data: bytes) -> Iterable[str]:
    try:
        return data.decode().split("\n")[:-1]  # not splitlines(): JSON strings may hold other line separators
    except UnicodeDecodeError as error:
        raise RecordError(f"{path}: byte {error.start} is not UTF-8; the log is damaged, restore it") from None


def _check_type(name: str, value: Any, kind: Any) -> None:
    kinds = typing.get_args(kind) if isinstance(kind, types.UnionType) else (typing.get_origin(kind) or kind,)
    if float in kinds and type(value) is int:
        kinds = (*kinds, int)
    if type(value) not in kinds:  # type(), not isinstance(): True is no episode_seed
        wanted = " or ".join(k.__name__ for k in kinds)
        raise RecordError(f"field '{name}' is {value!r}; it must be {wanted}")
    if isinstance(value, float) and not math.isfinite(value):
        raise RecordError(f"field '{name}' is {value}; it must be finite")
    if isinstance(value, dict):
        try:
            canonical(value)
        except (TypeError, ValueError) as error:
            raise RecordError(f"field '{name}' is not plain JSON: {error}") from None
