"""The forecast of a command of several stages: its share, the time left, and how the run's own pace refines both."""

import ast
import io
import re
import time
from pathlib import Path

import pytest

from metalora_jax.machine import progress
from metalora_jax.machine.forecast import Forecast, approximate

ROOT = Path(__file__).parents[2]
SECONDS = {"demonstrations": 100.0, "meta-train": 300.0, "episodes": 600.0}


@pytest.fixture
def forecast():
    forecast = Forecast(dict(SECONDS))
    progress.show_forecast(forecast)
    yield forecast
    progress.show_forecast(None)


def test_before_anything_has_run_the_measurement_is_all_there_is():
    forecast = Forecast(dict(SECONDS))
    assert forecast.at("demonstrations") == (0.0, pytest.approx(1000.0))
    assert forecast.at("episodes") == (pytest.approx(0.4), pytest.approx(600.0))
    assert forecast.heading("meta-train", "episodes") == "10% done, this part takes 90%, about 15 min left"


def test_a_run_at_the_measured_pace_keeps_to_it_all_the_way():
    forecast = Forecast(dict(SECONDS))
    before = 0.0
    for stage, seconds in SECONDS.items():
        for fraction in (0.1, 0.5, 1.0):
            share, left = forecast.at(stage, fraction, fraction, fraction * seconds)
            assert share == pytest.approx((before + fraction * seconds) / 1000)
            assert left == pytest.approx(1000 - before - fraction * seconds)
        forecast.end(stage, 1.0, seconds)
        before += seconds


def test_a_machine_of_half_the_speed_is_found_out():
    """Of a run that takes 2,000 s: the estimate comes closer with all that has run."""
    forecast = Forecast(dict(SECONDS))
    off = []
    for stage, done in (("demonstrations", 0.0), ("meta-train", 100.0), ("episodes", 400.0)):
        for fraction in (0.25, 0.75):
            elapsed = 2 * fraction * SECONDS[stage]
            _, left = forecast.at(stage, fraction, fraction, elapsed)
            true = 2 * (1000 - done - fraction * SECONDS[stage])
            off.append(1 - left / true)
        forecast.end(stage, 1.0, 2 * SECONDS[stage])
    assert off == sorted(off, reverse=True)
    assert off[0] < 0.5
    assert 0 <= off[-1] < 0.05


def test_a_stage_at_a_rate_of_its_own_is_estimated_by_it():
    """Ten times as slow as measured: the rest takes as long as the half that is done, whatever others took."""
    forecast = Forecast(dict(SECONDS))
    _, left = forecast.at("episodes", 0.5, 0.5, 3000.0)
    assert left == pytest.approx(3000, rel=0.15)


def test_what_a_resumed_run_finds_done_tells_nothing_of_its_pace():
    forecast = Forecast(dict(SECONDS))
    forecast.end("demonstrations", 0.0, 0.1)
    share, left = forecast.at("meta-train", fraction=0.9, moved=0.0, elapsed=1.0)
    assert share == pytest.approx(0.37)
    assert left == pytest.approx(630.0)


def test_compilation_before_the_first_step_does_not_count():
    assert Forecast(dict(SECONDS)).at("meta-train", elapsed=60.0)[1] == pytest.approx(900.0)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "about 10 s"), (41, "about 50 s"), (100, "about 2 min"), (571, "about 10 min")]
)
def test_no_more_digits_than_are_known(seconds, text):
    assert approximate(seconds) == text


def test_bars_of_a_stage_show_the_whole_from_their_first_line(forecast):
    file = io.StringIO()
    bar = progress.progress(description="meta-train fomaml, seed 0", total=4, initial=2, every=0.0, file=file)
    first = file.getvalue().splitlines()[0]
    assert first.startswith("meta-train fomaml, seed 0: 2/4 (50 %)")
    assert first.endswith("; the whole: 25%, about 12 min left")
    bar.update(2)
    bar.close()
    assert "; the whole: 40%" in file.getvalue()
    assert forecast.done == pytest.approx(150.0)  # the half that it did itself
    assert 0 < forecast.took < 60


@pytest.mark.parametrize("total", [3, None])
def test_other_bars_do_not(forecast, total):
    file = io.StringIO()
    with progress.progress(description="frozen front, frames", total=total, every=0.0, file=file) as bar:
        bar.update()
    assert "frozen front" in file.getvalue()
    assert "whole" not in file.getvalue()
    assert forecast.done == 0


def test_a_terminal_shows_it_too(forecast):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    file = Terminal()
    with progress.progress(description="episodes", total=2, file=file) as bar:
        bar.update()
    assert "; the whole: 40%, about 10 min left" in file.getvalue()


def test_the_stages_of_the_quickstart_have_bars():
    """A bar that is renamed would show no forecast, and nothing else would tell."""
    tree = ast.parse((ROOT / "experiments" / "quickstart.py").read_text())
    (seconds,) = (
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "SECONDS"
    )
    sources = [*(ROOT / "metalora_jax").rglob("*.py"), ROOT / "experiments" / "quickstart.py"]
    bars = {name for path in sources for name in re.findall(r'description=f?"([^"]+)"', path.read_text())}
    without = {"one scene", "films and report"}
    assert {name for name in seconds if not any(bar.startswith(name) for bar in bars)} == without


def test_a_bar_that_waits_counts_the_seconds():
    file = io.StringIO()
    with progress.progress(description="frames", total=2, every=0.0, file=file) as bar:
        with progress.waiting(bar, "compiling") as done:
            time.sleep(1.3)
            done()
            bar.update()
        bar.update()
    first, began, waited, *rest = file.getvalue().splitlines()
    assert "compiling" not in first
    assert began.endswith("compiling")
    assert waited.endswith("compiling, 1 s")
    assert rest
    assert not any("compiling" in line for line in rest)


def test_what_is_over_at_once_shows_no_bar():
    file = io.StringIO()
    for _ in progress.progress(range(3), description="frames", every=0.0, delay=60.0, file=file):
        pass
    assert file.getvalue() == ""
