"""Work in other processes: all results, the first error, and no waiting for the dead."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest

from metalora_jax.machine.processes import Host, in_processes

_started = 0


def start(value):
    global _started
    _started = value


def add(x, y):
    return x + y + _started


def die(_):
    os.kill(os.getpid(), signal.SIGKILL)


def fail(name):
    raise ValueError(f"no task named {name}")


def number():
    return os.getpid()


def replaces_damaged_programs():
    from jax._src import compilation_cache

    return hasattr(compilation_cache.get_executable_and_time, "replaces_damaged")


def wait(path):
    path.write_text(str(os.getpid()))
    time.sleep(60)


def test_every_job_once():
    assert sorted(in_processes(add, [(i, 1) for i in range(5)], 2, start, (100,))) == [101, 102, 103, 104, 105]
    assert list(in_processes(add, [], 2)) == []


def test_what_a_job_raises_is_raised_here():
    with pytest.raises(ValueError, match="no task named raech"):
        list(in_processes(fail, [("raech",)], 1))


def test_what_the_start_raises_is_raised_here():
    with pytest.raises(ValueError, match="no task named raech"):
        list(in_processes(add, [(1, 1)], 1, fail, ("raech",)))


def test_a_process_is_replaced_after_its_share_of_jobs():
    assert max(Counter(in_processes(number, [()] * 6, 2, jobs_each=2)).values()) == 2


def test_many_bytes_on_the_way_to_the_dead_are_no_wait():
    with pytest.raises(RuntimeError, match="died"):
        list(in_processes(die, [(b"0" * 10_000_000,)] * 4, 2))


def test_a_dead_process_is_an_error_not_a_wait():
    with pytest.raises(RuntimeError, match=r"a worker process died .* the same command resumes"):
        list(in_processes(die, [(1,), (2,)], 1))


def blocked():
    return signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())


class WhileItImports:
    """Becomes what `blocked` is while a process is still reading what it is to do."""

    def __reduce__(self):
        return blocked, ()


def started_and_now():
    return _started, blocked()


def test_a_ctrl_c_while_a_process_imports_waits_until_it_works():
    assert list(in_processes(started_and_now, [()], 1, start, (WhileItImports(),))) == [(True, False)]
    assert not blocked()


def fate(number):
    if number % 10 == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if number % 10 == 2:
        time.sleep(60)
    return number


def obituary(why, number):
    return f"{number}: {why}"


def test_the_lost_are_replaced_and_accounted_for():
    fates = list(in_processes(fate, [(i,) for i in (11, 12, 3, 4, 5)], 2, lost=obituary, timeout=8.0))
    assert {each for each in fates if isinstance(each, int)} == {3, 4, 5}
    lost = sorted(each for each in fates if isinstance(each, str))
    assert [each.split(":")[0] for each in lost] == ["11", "12"]
    assert "died without an error message" in lost[0]
    assert "did not answer within 8 s" in lost[1]


def test_all_lost_in_a_row_are_no_bad_luck():
    seen = []
    with pytest.raises(RuntimeError, match="died without an error message"):
        seen.extend(in_processes(fate, [(1,)] * 9, 1, lost=obituary))
    with pytest.raises(RuntimeError, match="did not answer"):
        list(in_processes(fate, [(2,)], 1, timeout=0.5))


def test_an_interrupt_lets_no_other_job_begin(tmp_path):
    marks = [tmp_path / str(i) for i in range(4)]
    parent = in_another_process(tmp_path, f"list(t.in_processes(t.wait, [(p,) for p in {marks!r}], 1))")
    try:
        until(lambda: marks[0].exists())
        os.killpg(parent.pid, signal.SIGINT)
        assert parent.wait(30) != 0
    finally:
        if parent.poll() is None:
            os.killpg(parent.pid, signal.SIGKILL)
    assert [mark.exists() for mark in marks] == [True, False, False, False]


@pytest.mark.skipif(sys.platform != "linux", reason="asks the Linux kernel to end orphans")
def test_processes_end_with_a_killed_parent(tmp_path):
    mark = tmp_path / "pid"
    parent = in_another_process(tmp_path, f"list(t.in_processes(t.wait, [({mark!r},)], 1))")
    try:
        child = int(until(lambda: mark.exists() and mark.read_text()))
    finally:
        parent.kill()
        parent.wait()
    until(lambda: not alive(child))


def in_another_process(tmp_path, statement):
    """A process group of its own, which a signal can be sent to as a terminal does."""
    script = tmp_path / "parent.py"
    script.write_text(
        "import signal\nfrom pathlib import Path, PosixPath\nimport tests.machine.test_processes as t\n"
        "if __name__ == '__main__':\n"
        "    signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"    {statement}\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    return subprocess.Popen(
        [sys.executable, script], env=environment, stderr=subprocess.DEVNULL, start_new_session=True
    )


def until(condition, seconds=30):
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return value


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(("jobs", "hosts"), [(0, 3), (2, 3), (10, 1), (10, 4)])
def test_hosts_share_all_jobs_evenly_and_in_order(jobs, hosts):
    parts = [list(Host(number, hosts).share(range(jobs))) for number in range(hosts)]
    assert [job for part in parts for job in part] == list(range(jobs))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    with pytest.raises(ValueError, match="numbered from 0"):
        Host(hosts, hosts).share(range(jobs))


def test_workers_replace_damaged_programs_too(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))
    assert list(in_processes(replaces_damaged_programs, [()], 1)) == [True]
