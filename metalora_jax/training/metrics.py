"""What a run reports while training: JSON lines on disk, optional dashboards, a guard against non-finite updates."""

import importlib
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from absl import logging

from metalora_jax.machine import files
from metalora_jax.types import Array, PyTree

Sink = Callable[[int, Mapping[str, float]], None]
"""Takes one step's metrics; the dashboards below are two of them."""

State = TypeVar("State")


class NonFiniteError(FloatingPointError):
    """Training has produced too many non-finite losses or gradients in a row."""


class Skips(NamedTuple):
    """Updates that were skipped, as device counters that travel with the training state."""

    total: Array  # () int32
    consecutive: Array  # () int32, back to 0 with the next finite update

    @classmethod
    def zero(cls) -> "Skips":
        """No skips yet."""
        return cls(jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))


def finite_or_skip(evidence: PyTree, state: State, new_state: State, skips: Skips) -> tuple[State, Skips]:
    """`new_state` where every number of `evidence` is finite, else `state` and one more skip. Pure, for use under jit.

    Unlike `optax.apply_if_finite` it also looks at the loss, keeps the whole state (anchors and learned rates too), and
    never lets a bad update through after enough of them: `raise_if_stuck` ends the run instead.

    Args:
      evidence: the loss and the gradients, any pytree of floating arrays.
      state: parameters and optimiser state before the update. Step, random key and data cursor do not belong in here:
        they have to advance, or the same bad batch would repeat for ever.
      new_state: the same after the update.
      skips: counts so far.
    """
    ok = jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(evidence)]))
    skipped = (~ok).astype(jnp.int32)
    # Not a `where` for each leaf: XLA's CPU compiler would copy the whole evidence into every one of them.
    chosen = jax.lax.cond(ok, lambda: new_state, lambda: state)
    return chosen, Skips(skips.total + skipped, (skips.consecutive + skipped) * skipped)


def raise_if_stuck(skips: Skips, step: int, cap: int = 10) -> None:
    """NonFiniteError when `cap` updates in a row were skipped. Waits for the device: call it where metrics are read."""
    if int(skips.consecutive) >= cap:
        raise NonFiniteError(
            f"{int(skips.consecutive)} updates in a row had a non-finite loss or gradient, up to step {step}; "
            "lower the learning rates, or check for a normalisation scale near zero"
        )


class MetricsWriter:
    """Appends one JSON line for each step to a file, and passes the same numbers to the sinks.

    A record is {"step": int, name: float, ...}; NaN and infinity, which JSON has no numbers for, are the strings "nan",
    "inf" and "-inf". Lines are handed to the operating system at once, so a killed process loses none.
    """

    def __init__(self, path: str | os.PathLike[str], first_step: int = 0, sinks: Sequence[Sink] = ()):
        """Opens `path` for steps from `first_step` on (the step after the restored one; 0 in a new run).

        Records of `first_step` and later, which a killed run wrote after its last checkpoint, are dropped, and so is a
        partial last line: the resumed run writes them again, and no step appears twice.

        Raises:
          ValueError: if a line other than the last is not a record.
        """
        self._path, self._sinks, self._last = Path(path), tuple(sinks), first_step - 1
        if self._path.exists():
            _drop_from(self._path, first_step)
        self._file = self._path.open("a", encoding="utf-8")

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Writes scalars (floats, ints, or arrays of one element); steps have to increase.

        Raises:
          ValueError: if a step is not larger than the one before, or a metric is not a scalar.
        """
        if step <= self._last:
            raise ValueError(f"metrics of step {step} after step {self._last}: steps have to increase")
        values = {name: _scalar(name, value) for name, value in metrics.items()}
        self._file.write(json.dumps({"step": step} | {k: _encode(v) for k, v in values.items()}) + "\n")
        self._file.flush()
        self._last = step
        for sink in self._sinks:
            sink(step, values)

    def close(self) -> None:
        """Closes the file; sinks are closed by their creators."""
        self._file.close()

    def __enter__(self) -> "MetricsWriter":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def read_metrics(path: str | os.PathLike[str]) -> list[dict[str, float]]:
    """The records of a metrics file, in order; ValueError names the line that is not one."""
    records = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
        record = _parse(line)
        if record is None:
            raise ValueError(f"{path}, line {number} is not a metrics record; remove it if a killed run left it torn")
        records.append(record)
    return records


def check_installed(*, tensorboard: bool = False, wandb: bool = False) -> None:
    """Refuses dashboards that are not installed, before work begins that they are to show.

    Raises:
      ModuleNotFoundError: the message says what to install.
    """
    wanted = [
        ("tensorboardX", "TensorBoard", "tensorboard", tensorboard),
        ("wandb", "Weights & Biases", "wandb", wandb),
    ]
    for module, name, extra, asked in wanted:
        if asked:
            try:
                importlib.import_module(module)
            except ModuleNotFoundError:
                raise ModuleNotFoundError(f"{name} is not installed: pip install 'metalora_jax[{extra}]'") from None


def tensorboard_sink(directory: str | os.PathLike[str], first_step: int = 0) -> Sink:
    """Writes scalars for TensorBoard; steps from `first_step` on that an earlier run left are hidden.

    Raises:
      ModuleNotFoundError: if tensorboardX is not installed.
    """
    check_installed(tensorboard=True)
    import tensorboardX

    writer = tensorboardX.SummaryWriter(str(directory), purge_step=first_step)

    def sink(step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            writer.add_scalar(name, value, step)
        writer.flush()

    return sink


def wandb_sink(project: str, run_id: str, config: Mapping[str, Any], directory: str | os.PathLike[str]) -> Sink:
    """Sends metrics to Weights & Biases; the same `run_id` continues the run there.

    Raises:
      ModuleNotFoundError: if wandb is not installed.
    """
    check_installed(wandb=True)
    import wandb

    run = wandb.init(project=project, id=run_id, resume="allow", config=dict(config), dir=str(directory))
    return lambda step, metrics: run.log(dict(metrics), step=step)


def _scalar(name: str, value: Any) -> float:
    if getattr(value, "size", 1) != 1 or isinstance(value, str | bool):
        raise ValueError(f"metric {name!r} is {value!r}, not one number; reduce it before it is written")
    return float(value.item() if hasattr(value, "item") else value)


def _encode(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


def _parse(line: str) -> dict[str, float] | None:
    try:
        record = json.loads(line)
        return {k: int(v) if k == "step" else float(v) for k, v in record.items()} if "step" in record else None
    except (ValueError, TypeError, AttributeError):
        return None


def _drop_from(path: Path, first_step: int) -> None:
    """Rewrites a metrics file without what a resumed run will write again; untouched when there is nothing to drop."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    torn = bool(lines) and (_parse(lines[-1]) is None or not lines[-1].endswith("\n"))
    if torn:
        logging.warning("%s: dropped an incomplete last line, %r", path, lines.pop()[:80])
    kept = []
    for number, line in enumerate(lines, 1):
        record = _parse(line)
        if record is None:
            raise ValueError(f"{path}, line {number} is not a metrics record; remove it, or use another work directory")
        if record["step"] < first_step:
            kept.append(line)
    if len(kept) < len(lines):
        logging.warning("%s: dropped %d records from step %d on", path, len(lines) - len(kept), first_step)
    if torn or len(kept) < len(lines):
        files.write_text(path, "".join(kept))
