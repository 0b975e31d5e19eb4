import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from absl import logging

from metalora_jax import trees
from metalora_jax.training.checkpoint import CheckpointError, Checkpoints, Interrupt, WorkdirError, claim
from metalora_jax.training.metrics import MetricsWriter

OPTIMIZER = optax.adam(1e-2)
STEPS, EVERY = 24, 3


def initial_state(width=3):
    theta = {"expert/q_proj": {"a": jnp.ones((2, width)), "b": jnp.zeros((width, 2), jnp.bfloat16)}}
    return {"theta": theta, "optimizer": OPTIMIZER.init(theta), "key": jax.random.key(0), "seen": np.zeros(2, np.int64)}


@jax.jit
def update(theta, optimizer, key, cursor):
    key, noise = jax.random.split(key)

    def loss_fn(theta):
        q = theta["expert/q_proj"]
        target = jax.random.normal(noise, (2, 2)) + jnp.sin(cursor)
        return jnp.sum((q["a"] @ q["b"].astype(jnp.float32) - target) ** 2)

    loss, grads = jax.value_and_grad(loss_fn)(theta)
    updates, optimizer = OPTIMIZER.update(grads, optimizer, theta)
    return optax.apply_updates(theta, updates), optimizer, key, loss


def train(workdir, steps=STEPS, every=EVERY, pause=0.0):
    """A whole run with everything that has to survive: parameters, optimiser, random key, host array, data cursor."""
    claim(workdir, {"every": every})
    with Checkpoints(workdir / "checkpoints") as checkpoints, Interrupt() as interrupt:
        state, cursor, start = initial_state(), 0, 0
        if restored := checkpoints.restore(state):
            start, state, cursor = restored.step, restored.state, restored.meta["cursor"]
        with MetricsWriter(workdir / "metrics.jsonl", first_step=start + 1) as writer:
            for step in range(start + 1, steps + 1):
                cursor = (cursor + 7) % 11
                theta, optimizer, key, loss = update(state["theta"], state["optimizer"], state["key"], cursor)
                state = {"theta": theta, "optimizer": optimizer, "key": key, "seen": state["seen"] + [1, cursor]}
                writer.write(step, {"loss": loss})
                time.sleep(pause)
                if interrupt or step % every == 0:
                    checkpoints.save(step, state, {"cursor": cursor})
                if interrupt:
                    sys.exit(Interrupt.EXIT_CODE)
    return state, cursor


def outcome(state, cursor):
    """All that a run has come to, in a value that can be compared."""
    return trees.digest(state | {"key": jax.random.key_data(state["key"])}), cursor


@pytest.fixture
def errors(monkeypatch):
    """What was reported aloud."""
    said = []
    monkeypatch.setattr(logging, "error", lambda message, *args: said.append(message % args))
    return said


# One leaf: of several failing reads, Orbax awaits the first, and the others complain to its closed event loop.
ONE_LEAF = {"theta": jnp.arange(64.0)}


def save_three(directory, state):
    with Checkpoints(directory) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, state, {"cursor": step})


def restore(directory, template):
    with Checkpoints(directory) as checkpoints:
        return checkpoints.restore(template)


def test_round_trip_is_bit_exact(tmp_path):
    state = initial_state()
    state["theta"]["expert/q_proj"]["a"] = jax.random.normal(jax.random.key(5), (2, 3))
    meta = {"cursor": (1, 2), "rate": 0.1, "ids": {10: "x", 9: "y"}}
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.restore(state) is None
        checkpoints.save(5, state, meta)
    step, restored, restored_meta = restore(tmp_path, state)
    assert (step, restored_meta) == (5, {"cursor": [1, 2], "rate": 0.1, "ids": {"10": "x", "9": "y"}})
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    assert outcome(restored, 0) == outcome(state, 0)
    assert isinstance(restored["seen"], np.ndarray)
    np.testing.assert_array_equal(jax.random.normal(restored["key"], 4), jax.random.normal(state["key"], 4))


def test_keeps_the_newest_generations(tmp_path):
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        for step in (1, 2, 5):
            checkpoints.save(step, initial_state(), {})
        assert checkpoints.steps() == [2, 5]
        with pytest.raises(CheckpointError, match="step 5 was not saved"):
            checkpoints.save(5, initial_state(), {})
    with pytest.raises(ValueError, match="keep=1"):
        Checkpoints(tmp_path, keep=1)


def lines(workdir):
    file = workdir / "metrics.jsonl"
    return file.read_text().splitlines() if file.exists() else []


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """Outcome and metrics of the run that nothing happened to."""
    workdir = tmp_path_factory.mktemp("unbroken") / "run"
    return outcome(*train(workdir)), lines(workdir)


def test_resumed_run_equals_unbroken_run(tmp_path, unbroken):
    train(tmp_path / "run", steps=2 * EVERY)
    assert (outcome(*train(tmp_path / "run")), lines(tmp_path / "run")) == unbroken


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s | {"theta": {"other": jnp.ones(2)}}, "'theta/expert/q_proj/a' is .* there, .absent. here"),
        (lambda s: s | {"more": jnp.ones(2)}, r"'more' is .absent. there, float32\[2\] here"),
        (lambda s: {k: v for k, v in s.items() if k != "seen"}, r"'seen' is int64\[2\] there"),
        (lambda s: initial_state(width=2), r"is float32\[2, 3\] there, float32\[2, 2\] here"),
        (lambda s: s | {"seen": np.zeros(2, np.float32)}, "'seen' is int64"),
    ],
)
def test_another_structure_is_refused(tmp_path, errors, change, message):
    save_three(tmp_path, initial_state())
    with pytest.raises(CheckpointError, match=message):
        restore(tmp_path, change(initial_state()))
    assert errors == []  # the generation is whole: it is neither reported as damaged nor passed over
    assert restore(tmp_path, initial_state()).step == 3


def test_host_values_are_refused_in_the_state(tmp_path):
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(CheckpointError, match="'n' is int, not an array"):
        checkpoints.save(1, {"n": 3}, {})


def data_files(generation):
    return [p for p in (generation / "state").rglob("*") if p.parent.name == "d"]


def truncate(generation):
    for file in data_files(generation):
        os.truncate(file, file.stat().st_size // 2)


def flip_bits(generation):
    for file in data_files(generation):
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 0xFF
        file.write_bytes(content)


def lose_record(generation):
    shutil.rmtree(generation / "record")


def edit_cursor(generation):
    file = generation / "record" / "metadata"
    record = json.loads(file.read_text())
    record["meta"]["cursor"] = 99
    file.write_text(json.dumps(record))


def swap_state(generation):
    """Files that read well, but hold another state than was saved."""
    other = generation.parent / "other"
    with Checkpoints(other) as checkpoints:
        checkpoints.save(1, {"theta": ONE_LEAF["theta"] + 1}, {})
    shutil.rmtree(generation / "state")
    shutil.move(other / "1" / "state", generation / "state")


@pytest.mark.parametrize("damage", [truncate, flip_bits, lose_record, edit_cursor, swap_state])
def test_damaged_generation_is_reported_and_the_one_before_is_used(tmp_path, errors, damage):
    save_three(tmp_path, ONE_LEAF)
    damage(tmp_path / "3")
    restored = restore(tmp_path, ONE_LEAF)
    assert (restored.step, restored.meta) == (2, {"cursor": 2})
    assert any("3 is damaged" in e for e in errors)
    assert any("resuming from step 2 instead of 3" in e for e in errors)
    assert (tmp_path / "3.damaged").is_dir()
    with Checkpoints(tmp_path) as checkpoints:  # the run comes by step 3 again
        checkpoints.restore(ONE_LEAF)
        checkpoints.save(3, ONE_LEAF, {"cursor": 3})
    assert restore(tmp_path, ONE_LEAF).step == 3


def test_nothing_whole_left_is_an_error(tmp_path, errors):
    save_three(tmp_path, ONE_LEAF)
    for step in (1, 2, 3):
        flip_bits(tmp_path / str(step))
    with pytest.raises(CheckpointError, match=r"all 3 generations .* are damaged"):
        restore(tmp_path, ONE_LEAF)
    assert len(errors) == 3
    assert (tmp_path / "3").is_dir()  # untouched, for rescue


def test_a_full_disk_is_named_and_costs_only_the_new_generation(tmp_path, monkeypatch):
    def full(*_, **__):
        raise ValueError('RESOURCE_EXHAUSTED: Error writing "opt_state/0" in OCDBT database')  # Orbax's words

    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, initial_state(), {})
        monkeypatch.setattr(checkpoints._manager, "save", full)
        with pytest.raises(CheckpointError, match="the disk is full: step 2 was not saved"):
            checkpoints.save(2, initial_state(), {})
        assert checkpoints.restore(initial_state()).step == 1


def test_workdir_belongs_to_one_configuration(tmp_path):
    config = {"seed": 1, "inner": {"rate": 0.1, "steps": 3}, "shape": (2, 3)}
    assert claim(tmp_path / "run", config) is False
    assert claim(tmp_path / "run", config) is True
    other = {"seed": 1, "inner": {"rate": 0.2, "steps": 3}, "shape": (2, 3), "new": None}
    with pytest.raises(WorkdirError, match=r"inner.rate was 0.1, is 0.2, new was '\(absent\)', is None;"):
        claim(tmp_path / "run", other)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["inner"] == {"rate": 0.1, "steps": 3}


def test_workdir_with_strange_files_is_refused(tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(WorkdirError, match=r"files but no config\.json"):
        claim(tmp_path, {})


def test_interrupt_sets_a_flag_once():
    before = signal.getsignal(signal.SIGTERM)
    with Interrupt() as interrupt:
        assert not interrupt
        os.kill(os.getpid(), signal.SIGTERM)
        assert interrupt
        assert signal.getsignal(signal.SIGTERM) is before  # a second signal acts as ever
    assert signal.getsignal(signal.SIGTERM) is before


def start(workdir):
    with open(f"{workdir}.log", "a") as log:
        return subprocess.Popen([sys.executable, __file__, str(workdir)], stdout=log, stderr=log)


def wait_for_metrics(process, workdir, more):
    seen = len(lines(workdir))
    while process.poll() is None and len(lines(workdir)) < seen + more:
        time.sleep(0.005)


def test_sigterm_saves_and_the_run_goes_on_later(tmp_path, unbroken):
    process = start(tmp_path / "run")
    wait_for_metrics(process, tmp_path / "run", EVERY + 2)
    process.terminate()
    assert process.wait(60) == Interrupt.EXIT_CODE, (tmp_path / "run.log").read_text()
    with Checkpoints(tmp_path / "run" / "checkpoints") as checkpoints:
        assert checkpoints.steps()[-1] == len(lines(tmp_path / "run")) < STEPS
    assert (outcome(*train(tmp_path / "run")), lines(tmp_path / "run")) == unbroken


def test_killed_at_random_moments_the_run_ends_as_if_it_never_was(tmp_path, unbroken):
    dice, kills = random.Random(0), 0
    for _ in range(6):
        process = start(tmp_path / "run")
        wait_for_metrics(process, tmp_path / "run", dice.randint(0, EVERY))
        time.sleep(dice.uniform(0, 0.1))  # a step takes 0.01 s, a save about 0.05 s: it falls into either
        process.kill()
        kills += process.wait() == -signal.SIGKILL
    assert kills >= 3, (tmp_path / "run.log").read_text()
    assert (outcome(*train(tmp_path / "run")), lines(tmp_path / "run")) == unbroken
    assert not list((tmp_path / "run" / "checkpoints").glob("*.damaged"))


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    train(Path(sys.argv[1]), pause=0.01)


def test_a_run_goes_on_with_more_of_one_field_alone(tmp_path):
    config = {"outer": {"steps": 5, "rate": 0.1}, "seed": 0}
    longer = {"outer": {"steps": 9, "rate": 0.1}, "seed": 0}
    claim(tmp_path / "run", config)
    with pytest.raises(WorkdirError, match=r"outer\.steps was 5, is 9"):
        claim(tmp_path / "run", longer)
    with pytest.raises(WorkdirError, match="seed was 0, is 1"):
        claim(tmp_path / "run", longer | {"seed": 1}, "outer.steps")
    assert claim(tmp_path / "run", longer, "outer.steps")
    assert json.loads((tmp_path / "run" / "config.json").read_text()) == longer
    with pytest.raises(WorkdirError, match=r"outer\.steps was 9, is 5"):
        claim(tmp_path / "run", config, "outer.steps")
