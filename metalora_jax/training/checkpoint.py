"""Checkpoints that resume bit-identically or not at all, on top of Orbax.

Orbax gives atomic visibility and generations. What is added here, because its lack has cost training runs elsewhere: a
digest of the content that every restore recomputes, a comparison of structure, shapes and dtypes with what the program
expects (Orbax can silently restore part of a larger checkpoint), a flush to the disk before `save` returns, and
a work directory that refuses a run with another configuration.

    resuming = claim(workdir, config)
    with Checkpoints(workdir / "checkpoints") as checkpoints, Interrupt() as interrupt:
        start = checkpoints.restore(state)  # None in a new run
        for step in ...:
            ...
            if interrupt or step % every == 0:
                checkpoints.save(step, state, {"cursor": cursor})
            if interrupt:
                sys.exit(Interrupt.EXIT_CODE)
"""

import contextlib
import errno
import hashlib
import json
import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging

from metalora_jax import trees
from metalora_jax.machine import files
from metalora_jax.types import PyTree

_CONFIG = "config.json"
_ABSENT = "(absent)"


class CheckpointError(ValueError):
    """A checkpoint that cannot be written or trusted; one line says which, why, and what to do."""


class WorkdirError(ValueError):
    """A work directory that belongs to another run."""


class Restored(NamedTuple):
    """What `Checkpoints.restore` returns."""

    step: int
    state: PyTree  # as saved, on the devices of the template
    meta: dict[str, Any]


class Checkpoints:
    """The generations of one run, newest `keep` of them, each in `directory/<step>`.

    Writing is synchronous: theta and its optimiser state are small, and a process that exits right after `save` loses
    nothing. In a run of several processes all of them call `save` and `restore`, with fully replicated arrays.
    """

    def __init__(self, directory: str | os.PathLike[str], keep: int = 3):
        """Opens `directory`, or makes it; what a killed process left half written is removed."""
        if keep < 2:
            raise ValueError(f"keep={keep} leaves no generation to fall back to; use 2 or more")
        self._directory = Path(directory).absolute()
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            enable_async_checkpointing=False,
            cleanup_tmp_directories=True,
            temporary_path_class=ocp.path.atomicity.AtomicRenameTemporaryPath,
        )
        with _quiet():
            self._manager = ocp.CheckpointManager(self._directory, options=options)

    def steps(self) -> list[int]:
        """Steps of the generations on disk, oldest first."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, state: PyTree, meta: Mapping[str, Any]) -> None:
        """Writes one generation and removes the oldest beyond `keep`; when it returns, the state is on the disk.

        Args:
          step: updates done so far; larger than that of every generation on disk.
          state: pytree of arrays (none of size zero) and typed random keys. Host values (a step, a cursor) go to meta.
          meta: JSON value, such as the data cursor and the digest of the configuration.

        Raises:
          CheckpointError: `step` is not newer than the newest generation, a leaf is not an array, or the disk is full.
        """
        arrays, meta = _to_arrays(state), _as_read_back(meta)
        record = {"leaves": _signature(arrays), "meta": meta, "digest": _digest(arrays, meta)}
        args = ocp.args.Composite(state=ocp.args.StandardSave(arrays), record=ocp.args.JsonSave(record))
        try:
            with _quiet():
                saved = self._manager.save(step, args=args)
        except Exception as error:
            if "RESOURCE_EXHAUSTED" not in str(error) and getattr(error, "errno", None) != errno.ENOSPC:
                raise
            raise CheckpointError(
                f"the disk is full: step {step} was not saved in {self._directory}, earlier generations are intact; "
                "free some space, and the same command resumes from there"
            ) from error
        if not saved:
            newest = self._manager.latest_step()
            raise CheckpointError(f"step {step} was not saved in {self._directory}: step {newest} already exists")
        files.sync_tree(self._directory / str(step))
        files.sync_tree(self._directory)

    def restore(self, template: PyTree) -> Restored | None:
        """The newest intact generation; None if there are no generations.

        A damaged generation is reported as an error in the log and set aside as `<step>.damaged`, and the one before
        it is tried. An intact generation that does not fit the template is never skipped: it raises.

        Args:
          template: a state with the structure, shapes, dtypes and placement on devices to restore to.

        Raises:
          CheckpointError: if the newest intact generation and `template` have different leaves, or all are damaged.
        """
        damaged: dict[int, str] = {}
        for step in reversed(self.steps()):
            try:
                with _quiet():
                    restored = self._read(step, template)
            except _Damaged as damage:
                logging.error("checkpoint %s is damaged: %s", self._directory / str(step), damage)
                damaged[step] = str(damage)
                continue
            for bad in damaged:
                aside = self._directory / f"{bad}.damaged"
                os.rename(self._directory / str(bad), aside)
                logging.error("resuming from step %d instead of %d; %s is kept for inspection", step, bad, aside)
            if damaged:
                self._manager.reload()
            return restored
        if damaged:
            raise CheckpointError(
                f"all {len(damaged)} generations in {self._directory} are damaged ({damaged}); "
                "restore the directory from a backup, or start over in a new one"
            )
        return None

    def _read(self, step: int, template: PyTree) -> Restored:
        try:
            record = self._manager.restore(step, args=ocp.args.Composite(record=ocp.args.JsonRestore()))["record"]
            leaves, meta, digest = record["leaves"], record["meta"], record["digest"]
        except Exception as error:  # Orbax, TensorStore and JSON each raise their own kinds on damaged files
            raise _Damaged(_one_line(error)) from error
        expected = _to_arrays(template)
        _check_signature(leaves, _signature(expected), self._directory / str(step))
        try:
            args = ocp.args.Composite(state=ocp.args.StandardRestore(jax.tree.map(_target, expected)))
            arrays = self._manager.restore(step, args=args)["state"]
        except Exception as error:
            raise _Damaged(_one_line(error)) from error
        if _digest(arrays, meta) != digest:
            raise _Damaged("content does not match its digest")
        return Restored(step, _from_arrays(arrays, template), meta)

    def close(self) -> None:
        """Releases what Orbax holds."""
        with _quiet():
            self._manager.close()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class _Damaged(Exception):
    """The files of a generation cannot be read, or their content differs from what was saved."""


class Interrupt:
    """Turns SIGTERM and SIGINT into a flag, so that a loop can end its step, save and leave.

    True once a signal has come. A second signal acts as it did before the block: Ctrl-C twice stops at once.
    A loop that left because of it exits with `Interrupt.EXIT_CODE`.
    """

    EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: nothing is lost, run the same command again
    _SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self._received: int | None = None
        self._previous: dict[int, Any] = {}

    def __bool__(self) -> bool:
        return self._received is not None

    def __enter__(self) -> "Interrupt":
        self._previous = {number: signal.signal(number, self._receive) for number in self._SIGNALS}
        return self

    def __exit__(self, *exception: object) -> None:
        self._restore_handlers()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._received = number
        self._restore_handlers()
        logging.warning("%s received: saving after this step; repeat it to stop at once", signal.Signals(number).name)

    def _restore_handlers(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}


def claim(workdir: str | os.PathLike[str], config: Mapping[str, Any], may_grow: str = "") -> bool:
    """Claims `workdir` for the run with this configuration; True if that run is already there.

    The configuration is written to `workdir/config.json`, atomically, before anything else is written there.

    Raises:
      WorkdirError: see `check_claim`.
    """
    if check_claim(workdir, config, may_grow):
        if json.loads((Path(workdir) / _CONFIG).read_text()) != _as_read_back(config):
            files.write_json(Path(workdir) / _CONFIG, _as_read_back(config), sort_keys=True)
        return True
    Path(workdir).mkdir(parents=True, exist_ok=True)
    files.write_json(Path(workdir) / _CONFIG, _as_read_back(config), sort_keys=True)
    return False


def check_claim(workdir: str | os.PathLike[str], config: Mapping[str, Any], may_grow: str = "") -> bool:
    """What `claim` would return, without a claim: for before a run's inputs have been read.

    Args:
      workdir: of the run.
      config: JSON.
      may_grow: a field, such as "outer.steps", that may be larger than in the run's configuration: then it goes on.

    Raises:
      WorkdirError: if the directory holds a run with another configuration (the differing fields are named), or files
        without one.
    """
    workdir = Path(workdir)
    config = _as_read_back(config)
    file = workdir / _CONFIG
    if file.exists():
        try:
            existing = json.loads(file.read_text())
        except ValueError:
            raise WorkdirError(f"{file} is not JSON; choose another work directory") from None
        if existing != config and not _grown(existing, config, may_grow):
            raise WorkdirError(
                f"{workdir} holds a run with another configuration: {_differences(existing, config)}; "
                "choose another work directory, or set these fields back to resume"
            )
        return True
    if workdir.exists() and any(not p.name.startswith(f".{_CONFIG}") for p in workdir.iterdir()):
        raise WorkdirError(f"{workdir} holds files but no {_CONFIG}; choose an empty work directory")
    return False


def _grown(old: dict[str, Any], new: dict[str, Any], field: str) -> bool:
    """Whether `field` (sections joined by dots) became larger, and nothing else changed."""
    name, _, rest = field.partition(".")
    if (
        name not in old
        or name not in new
        or any(old.get(other) != new.get(other) for other in (old | new) if other != name)
    ):
        return False
    if rest:
        return isinstance(old[name], dict) and isinstance(new[name], dict) and _grown(old[name], new[name], rest)
    return isinstance(old[name], int) and isinstance(new[name], int) and new[name] > old[name]


def _differences(old: Any, new: Any, name: str = "") -> str:
    if isinstance(old, dict) and isinstance(new, dict):
        fields = [
            _differences(old.get(key, _ABSENT), new.get(key, _ABSENT), f"{name}.{key}" if name else key)
            for key in sorted(old.keys() | new.keys())
            if old.get(key, _ABSENT) != new.get(key, _ABSENT)
        ]
        return ", ".join(fields)
    return f"{name} was {old!r}, is {new!r}"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Orbax logs every step of every save at INFO, twenty lines each; warnings and errors still show."""
    level = logging.get_verbosity()
    logging.set_verbosity(min(level, logging.WARNING))
    try:
        yield
    finally:
        logging.set_verbosity(level)


def _is_key(leaf: Any) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _to_arrays(state: PyTree) -> dict[str, Any]:
    """{leaf path: array}: flat, so that no container's rules stand between what is saved and what comes back."""
    arrays = {}
    for path, leaf in trees.named_leaves(state):
        if not hasattr(leaf, "dtype"):
            raise CheckpointError(f"state leaf {path!r} is {type(leaf).__name__}, not an array; keep it in meta")
        arrays[path] = jax.random.key_data(leaf) if _is_key(leaf) else leaf
    return arrays


def _from_arrays(arrays: Mapping[str, Any], template: PyTree) -> PyTree:
    leaves = [
        jax.random.wrap_key_data(arrays[path], impl=jax.random.key_impl(leaf)) if _is_key(leaf) else arrays[path]
        for path, leaf in trees.named_leaves(template)
    ]
    return jax.tree.unflatten(jax.tree.structure(template), leaves)


def _target(leaf: Any) -> Any:
    if isinstance(leaf, np.ndarray):
        return leaf
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)


def _signature(arrays: Mapping[str, Any]) -> dict[str, str]:
    return {path: f"{np.dtype(leaf.dtype).name}{list(leaf.shape)}" for path, leaf in arrays.items()}


def _check_signature(saved: Mapping[str, str], expected: Mapping[str, str], where: Path) -> None:
    for path in sorted(saved.keys() | expected.keys()):
        if saved.get(path) != expected.get(path):
            raise CheckpointError(
                f"{where} does not fit this program: {path!r} is {saved.get(path, _ABSENT)} there, "
                f"{expected.get(path, _ABSENT)} here; resume with the code and configuration it was saved with"
            )


def _as_read_back(value: Mapping[str, Any]) -> dict[str, Any]:
    """What JSON will make of it: tuples become lists, keys strings. NaN raises ValueError."""
    return json.loads(json.dumps(value, allow_nan=False))


def _digest(arrays: Mapping[str, Any], meta: Mapping[str, Any]) -> str:
    text = json.dumps(meta, sort_keys=True, allow_nan=False)
    return hashlib.sha256(f"{trees.digest(arrays)}\0{text}".encode()).hexdigest()


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200] if str(error).strip() else ''}"
