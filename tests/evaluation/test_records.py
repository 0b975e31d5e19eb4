"""The episode log: strict, append-only, and whole again after a kill at any moment."""

import dataclasses
import json
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import metalora_jax
from metalora_jax.evaluation.reports import records
from metalora_jax.evaluation.reports.records import Episode, EpisodeLog, RecordError

EPISODE = Episode(
    method="fomaml",
    meta_seed=0,
    distribution="tasks",
    split="test",
    task="door-open",
    condition={"camera_yaw": 0.3, "latency": 2},
    shots=5,
    draw=1,
    steps=10,
    episode_seed=7,
    success=True,
    episode_return=3.5,
    length=80,
    adapt_seconds=0.4,
    support_loss=0.01,
    fingerprint="abc",
    error=None,
)


def change(**fields) -> Episode:
    return dataclasses.replace(EPISODE, **fields)


def test_a_line_reads_back_as_the_same_episode():
    odd = change(task="door\u2028open\n", support_loss=None, success=False, error="NaN in qacc")
    for episode in (EPISODE, odd):
        line = records.to_line(episode)
        assert line.count("\n") == 1
        assert records.from_line(line) == episode


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"success": 1}, "'success' is 1; it must be bool"),
        ({"success": np.True_}, "must be bool"),
        ({"episode_seed": True}, "'episode_seed' is True; it must be int"),
        ({"episode_return": float("nan")}, "'episode_return' is nan; it must be finite"),
        ({"support_loss": float("inf")}, "must be finite"),
        ({"support_loss": "0.1"}, "must be float or NoneType"),
        ({"condition": {"yaw": float("nan")}}, "'condition' is not plain JSON"),
        ({"condition": {"yaw": object()}}, "'condition' is not plain JSON"),
        ({"steps": -1}, "'steps' is -1; it cannot be negative"),
        ({"shots": 0}, "nothing to take a step on"),
        ({"error": "broke"}, "an episode that broke is a failure"),
        ({"split": "../test"}, "it names files"),
    ],
)
def test_invalid_fields_are_named(fields, message):
    with pytest.raises(RecordError, match=message.replace("(", r"\(")):
        records.to_line(change(**fields))


def test_missing_and_unknown_fields_are_named():
    fields = json.loads(records.to_line(EPISODE))
    fields["sucess"] = fields.pop("success")
    with pytest.raises(RecordError, match=r"missing fields \['success'\], unknown fields \['sucess'\]"):
        records.from_line(json.dumps(fields))


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Episode)])
def test_a_line_may_leave_out_the_fields_of_controls_and_maps_and_no_others(name):
    fields = json.loads(records.to_line(EPISODE))
    value = fields.pop(name)
    if name in ("adapted_to", "told", "altered", "scale", "gated", "commands", "identified"):
        assert value is None
        assert records.from_line(json.dumps(fields)) == EPISODE
    else:
        with pytest.raises(RecordError, match=rf"missing fields \['{name}'\], unknown fields \[\]"):
            records.from_line(json.dumps(fields))


def test_key_holds_what_was_decided_before_the_episode():
    assert change(condition={"latency": 2, "camera_yaw": 0.3}).key == EPISODE.key
    for same in ({"success": False}, {"fingerprint": "other"}, {"adapt_seconds": 9.0}):
        assert change(**same).key == EPISODE.key
    for other in ({"episode_seed": 8}, {"draw": 0}, {"condition": {}}, {"meta_seed": 1}, {"adapter_on": False}):
        assert change(**other).key != EPISODE.key
    for other in ({"told": "open the door"}, {"adapted_to": "drawer-open"}, {"scale": 0.5}, {"gated": True}):
        assert change(**other).key != EPISODE.key


def test_log_resumes_where_it_stopped(tmp_path):
    path = tmp_path / "run" / "episodes.jsonl"
    with EpisodeLog(path) as log:
        log.append(EPISODE)
    with EpisodeLog(path) as log:
        assert log.done(EPISODE.key, "abc")
        assert not log.done(change(episode_seed=8).key, "abc")
        log.append(change(episode_seed=8))
        assert len(log) == 2
    assert records.read_episodes(path) == [EPISODE, change(episode_seed=8)]


def test_log_refuses_repeats_other_fingerprints_and_a_second_writer(tmp_path):
    with EpisodeLog(tmp_path / "episodes.jsonl") as log:
        log.append(EPISODE)
        with pytest.raises(RecordError, match="recorded already"):
            log.append(change(success=False))
        with pytest.raises(RecordError, match="fingerprint abc, this run has new"):
            log.done(EPISODE.key, "new")
        with pytest.raises(RecordError, match="another process is writing"):
            EpisodeLog(tmp_path / "episodes.jsonl")


def test_every_torn_last_line_is_dropped_and_run_again(tmp_path):
    path, lines = tmp_path / "episodes.jsonl", [records.to_line(change(episode_seed=i)).encode() for i in range(2)]
    for cut in (1, 20, len(lines[1]) - 1):
        path.write_bytes(lines[0] + lines[1][:cut])
        assert len(records.read_episodes(path)) == 1
        with EpisodeLog(path) as log:
            assert not log.done(change(episode_seed=1).key, "abc")
            log.append(change(episode_seed=1))
        assert path.read_bytes() == b"".join(lines)


def test_a_damaged_line_in_the_middle_is_refused_by_number(tmp_path):
    path, line = tmp_path / "episodes.jsonl", records.to_line(EPISODE)
    for damaged, message in (
        (line[:40] + "\n", "2: not JSON"),
        (line, "2: repeats the episode"),
        ("[1]\n", "2: not a JSON object"),
        ("\n", "2: not JSON"),
    ):
        path.write_text(line + damaged + records.to_line(change(episode_seed=9)))
        with pytest.raises(RecordError, match=message):
            records.read_episodes(path)
        with pytest.raises(RecordError, match=message):
            EpisodeLog(path)
    path.write_bytes(b"\xff\n")
    with pytest.raises(RecordError, match="not UTF-8"):
        records.read_episodes(path)


def test_read_run_joins_workers_and_refuses_overlap(tmp_path):
    for worker in range(2):
        with EpisodeLog(tmp_path / f"episodes-{worker}.jsonl") as log:
            log.append(change(episode_seed=worker))
    assert [e.episode_seed for e in records.read_run(tmp_path)] == [0, 1]
    with EpisodeLog(tmp_path / "episodes-1.jsonl") as log:
        log.append(change(episode_seed=0))
    with pytest.raises(RecordError, match="repeats an episode of another log"):
        records.read_run(tmp_path)
    with pytest.raises(RecordError, match="no episodes"):
        records.read_run(tmp_path / "nowhere")


def test_killed_writers_leave_a_log_that_resumes_to_the_same_records(tmp_path):
    path, total = tmp_path / "episodes.jsonl", 60
    program = textwrap.dedent(f"""
        import dataclasses, time
        from metalora_jax.evaluation.reports.records import EpisodeLog, from_line
        first = from_line({records.to_line(EPISODE)!r})
        with EpisodeLog({str(path)!r}) as log:
            print("ready", flush=True)
            for i in range({total}):
                episode = dataclasses.replace(first, episode_seed=i)
                if not log.done(episode.key, episode.fingerprint):
                    log.append(episode)
                    time.sleep(0.005)
        """)
    rng = np.random.default_rng(0)
    for _ in range(6):
        process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
        with process:
            assert process.stdout.readline() == b"ready\n"
            enough = path.stat().st_size + rng.integers(1, 2000)  # bytes: anywhere in the next few lines
            while path.stat().st_size < enough and process.poll() is None:
                pass
            process.send_signal(signal.SIGKILL)
    survived = len(records.read_episodes(path))
    assert 0 < survived < total
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    assert [e.episode_seed for e in records.read_episodes(path)] == list(range(total))


def test_a_failed_write_leaves_no_half_line(tmp_path, monkeypatch):
    path = tmp_path / "episodes.jsonl"
    with EpisodeLog(path) as log:
        log.append(EPISODE)
        with monkeypatch.context() as patch:
            patch.setattr(records.os, "fsync", lambda _: (_ for _ in ()).throw(OSError("no space left")))
            with pytest.raises(OSError, match="no space left"):
                log.append(change(episode_seed=8))
        log.append(change(episode_seed=9))
    assert [e.episode_seed for e in records.read_episodes(path)] == [7, 9]


def test_code_digest_is_of_names_and_texts(tmp_path):
    (tmp_path / "a.py").write_text("x = 1")
    before = records.code_digest(tmp_path)
    (tmp_path / "a.py").rename(tmp_path / "b.py")
    renamed = records.code_digest(tmp_path)
    (tmp_path / "b.py").write_text("x = 2")
    assert len({before, renamed, records.code_digest(tmp_path)}) == 3


def test_code_digest_is_of_the_whole_package():
    assert records.code_digest() == records.code_digest(Path(metalora_jax.__file__).parent)
