import io
import json
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metalora_jax.machine.progress import progress
from metalora_jax.training import metrics
from metalora_jax.training.metrics import MetricsWriter, NonFiniteError, Skips, finite_or_skip, read_metrics


def write(path, steps, first_step=0):
    with MetricsWriter(path, first_step) as writer:
        for step in steps:
            writer.write(step, {"loss": 1.0 / (step + 1)})


def test_writes_what_is_read(tmp_path):
    with MetricsWriter(tmp_path / "m.jsonl") as writer:
        writer.write(0, {"loss": jnp.float32(0.5), "norm": np.array([2.0]), "skips": 3})
        writer.write(7, {"loss": float("nan"), "norm": jnp.inf})
    first, second = read_metrics(tmp_path / "m.jsonl")
    assert first == {"step": 0, "loss": 0.5, "norm": 2.0, "skips": 3.0}
    assert np.isnan(second["loss"])
    assert second["norm"] == np.inf
    for line in (tmp_path / "m.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)  # strict JSON: no bare NaN


def test_lines_are_visible_before_close(tmp_path):
    writer = MetricsWriter(tmp_path / "m.jsonl")
    writer.write(0, {"loss": 1.0})
    assert len(read_metrics(tmp_path / "m.jsonl")) == 1
    writer.close()


def test_resume_writes_no_step_twice(tmp_path):
    write(tmp_path / "resumed.jsonl", range(8))
    write(tmp_path / "resumed.jsonl", range(5, 12), first_step=5)
    write(tmp_path / "unbroken.jsonl", range(12))
    assert (tmp_path / "resumed.jsonl").read_bytes() == (tmp_path / "unbroken.jsonl").read_bytes()


@pytest.mark.parametrize("torn", ['{"step": 3, "lo', '{"step": 3, "loss": 0.25}', "\0\0\0"])
def test_torn_last_line_is_dropped(tmp_path, torn):
    path = tmp_path / "m.jsonl"
    write(path, range(3))
    with path.open("a") as file:
        file.write(torn)
    write(path, range(3, 5), first_step=3)
    assert [r["step"] for r in read_metrics(path)] == [0, 1, 2, 3, 4]


def test_damage_elsewhere_is_refused(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_text('{"step": 0}\ngarbage\n{"step": 2}\n')
    with pytest.raises(ValueError, match="line 2"):
        MetricsWriter(path, 3)
    with pytest.raises(ValueError, match="line 2"):
        read_metrics(path)


def test_steps_increase_and_metrics_are_scalars(tmp_path):
    with MetricsWriter(tmp_path / "m.jsonl", first_step=4) as writer:
        with pytest.raises(ValueError, match="steps have to increase"):
            writer.write(3, {"loss": 1.0})
        with pytest.raises(ValueError, match="'loss'"):
            writer.write(4, {"loss": jnp.ones(2)})


def test_sinks_get_every_step(tmp_path, monkeypatch):
    seen = []
    summary = types.SimpleNamespace(add_scalar=lambda *a: seen.append(("tensorboard", *a)), flush=lambda: None)
    run = types.SimpleNamespace(log=lambda values, step: seen.append(("wandb", values, step)))
    monkeypatch.setitem(sys.modules, "tensorboardX", types.SimpleNamespace(SummaryWriter=lambda *a, **k: summary))
    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=lambda **k: run))
    sinks = [metrics.tensorboard_sink(tmp_path), metrics.wandb_sink("project", "run", {}, tmp_path)]
    with MetricsWriter(tmp_path / "m.jsonl", sinks=sinks) as writer:
        writer.write(2, {"loss": jnp.float32(0.5)})
    assert seen == [("tensorboard", "loss", 0.5, 2), ("wandb", {"loss": 0.5}, 2)]


@pytest.mark.parametrize(("module", "extra"), [("tensorboardX", "tensorboard"), ("wandb", "wandb")])
def test_missing_dashboard_names_the_extra(tmp_path, monkeypatch, module, extra):
    monkeypatch.setitem(sys.modules, module, None)
    metrics.check_installed()
    with pytest.raises(ModuleNotFoundError, match=rf"metalora_jax\[{extra}\]"):
        metrics.check_installed(**{extra: True})
    with pytest.raises(ModuleNotFoundError, match=rf"metalora_jax\[{extra}\]"):
        metrics.tensorboard_sink(tmp_path) if extra == "tensorboard" else metrics.wandb_sink("p", "r", {}, tmp_path)


def descend(state, skips, target, scale):
    """One step of gradient descent on |w - target|^2 under the guard."""
    loss, grads = jax.value_and_grad(lambda w: scale * jnp.sum((w - target) ** 2))(state["w"])
    new = {"w": state["w"] - 0.1 * grads, "count": state["count"] + 1, "key": jax.random.split(state["key"])[0]}
    return finite_or_skip((loss, grads), state, new, skips)


def test_bad_updates_are_skipped_and_counted():
    state, skips = {"w": jnp.ones(3), "count": jnp.int32(0), "key": jax.random.key(0)}, Skips.zero()
    step = jax.jit(descend)
    seen = []
    for target, scale in [(0.0, 1.0), (jnp.nan, 1.0), (0.0, jnp.inf), (0.0, 1.0), (jnp.inf, 1.0)]:
        state, skips = step(state, skips, target, scale)
        seen.append((int(state["count"]), int(skips.total), int(skips.consecutive)))
    assert seen == [(1, 0, 0), (1, 1, 1), (1, 2, 2), (2, 2, 0), (2, 3, 1)]
    np.testing.assert_allclose(state["w"], 0.8**2, rtol=1e-6)


def test_a_good_update_is_untouched():
    state = {"w": jnp.ones(3)}
    new, _ = finite_or_skip(jnp.float32(1.0), state, {"w": jnp.arange(3.0)}, Skips.zero())
    np.testing.assert_array_equal(new["w"], np.arange(3.0))


def test_stuck_run_ends_with_the_step():
    metrics.raise_if_stuck(Skips(jnp.int32(50), jnp.int32(2)), step=7, cap=3)
    with pytest.raises(NonFiniteError, match=r"3 updates in a row.*step 7"):
        metrics.raise_if_stuck(Skips(jnp.int32(3), jnp.int32(3)), step=7, cap=3)


def test_progress_prints_lines_where_there_is_no_terminal():
    file = io.StringIO()
    bar = progress(range(3, 10), description="meta-train", initial=3, every=3600, file=file)
    for i in bar:
        bar.set_postfix(loss=i / 2)
    lines = [line for line in file.getvalue().split("\n") if line]
    assert "\r" not in file.getvalue()
    assert len(lines) == 2  # the first, and the last at the end; none in between within the hour
    assert lines[0].startswith("meta-train: 3/10 (30 %)")
    assert lines[1].startswith("meta-train: 10/10 (100 %)")
    assert "loss=4.5" in lines[1]
    assert "it/s" in lines[1]


def test_progress_prints_as_time_passes():
    file = io.StringIO()
    bar = progress(description="demos", total=4, every=0.0, file=file)
    for _ in range(4):
        bar.update()
    bar.close()
    assert [line.split(" ")[1] for line in file.getvalue().splitlines()[:5]] == ["0/4", "1/4", "2/4", "3/4", "4/4"]


def test_progress_estimates_nothing_where_the_total_is_unknown():
    file = io.StringIO()
    with progress(description="pieces", every=0.0, file=file) as bar:
        bar.update()
    assert "pieces: 1 done" in file.getvalue()
    assert "left" not in file.getvalue()
