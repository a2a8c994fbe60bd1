from __future__ import annotations

import secrets
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sandbox.process_table import descendants, eventually, left_of, mentioning
from zenskar.sandbox import processes

FAMILY = ["/bin/sh", "-c", "trap '' TERM; sleep 300 & sleep 300 & wait; wait"]
"""A process with two children that does not care for SIGTERM."""


@pytest.mark.feature("H7")
def test_it_stops_a_process_with_all_of_its_children(tmp_path: Path) -> None:
    process = processes.start(FAMILY, log=tmp_path / "log")
    assert eventually(lambda: len(descendants(process.pid)) == 2)
    family = descendants(process.pid) | {process.pid}

    processes.stop(process, grace=0.2)

    assert eventually(lambda: not left_of(family))


@pytest.mark.feature("H7")
def test_it_lets_a_process_wait_for_its_children(tmp_path: Path) -> None:
    finished = tmp_path / "finished"
    child = f"(read line <{tmp_path}/go; echo done >{finished})"
    subprocess.run(["mkfifo", tmp_path / "go"], check=True)
    script = f"trap 'echo >{tmp_path}/go; wait; exit 7' TERM; {child} & echo ready; wait"
    process = processes.start(["/bin/sh", "-c", script], log=tmp_path / "log")
    assert eventually(lambda: len(descendants(process.pid)) == 1 and (tmp_path / "log").read_text() == "ready\n")

    status = processes.stop(process)

    assert (status, finished.read_text()) == (7, "done\n")


@pytest.mark.feature("H7")
def test_it_stops_several_within_one_grace(tmp_path: Path) -> None:
    running = [processes.start(FAMILY, log=tmp_path / "log") for _ in range(3)]
    assert eventually(lambda: all(len(descendants(process.pid)) == 2 for process in running))

    processes.stop_together(running, grace=0.2)

    assert [process.returncode for process in running] == [-signal.SIGKILL] * 3


@pytest.mark.feature("H7")
def test_it_leaves_nothing_when_the_parent_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    program = f"""
import pathlib, time
from zenskar.sandbox import processes
processes.remove_afterwards(pathlib.Path({str(folder)!r}))
child = processes.start(["/bin/sh", "-c", "sleep 300 & wait"], log=pathlib.Path({str(tmp_path / "log")!r}))
print(child.pid, flush=True)
time.sleep(300)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert eventually(lambda: len(descendants(child)) == 1)
        family = descendants(parent.pid)
        parent.kill()

    assert len(family) == 3, "the child, its child and the reaper"
    assert eventually(lambda: not left_of(family))
    assert not folder.exists()


def test_it_loses_no_process_to_an_interruption_while_one_starts(tmp_path: Path) -> None:
    name = f"300.{secrets.randbelow(10**9):09}"
    program = f"""
import pathlib, signal
from zenskar.sandbox import processes
class Enough(Exception): pass
def interrupt(number, frame): processes.interrupt(Enough())
signal.signal(signal.SIGALRM, interrupt)
started = []  # kept: what is raised while one is finalised would be lost
for microseconds in range(0, 6000, 200):
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.0005 + microseconds / 1e6)
        while True:
            started.append(processes.start(["/bin/sleep", "{name}"], log=pathlib.Path({str(tmp_path / "log")!r})))
    except Enough:
        pass
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True)

    assert eventually(lambda: not mentioning(name))


def test_it_shows_the_end_of_the_log_of_what_did_not_start(tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = processes.start(["/bin/sh", "-c", "echo no such luck; exit 3"], log=log)

    with pytest.raises(processes.StartFailed, match="Lucky did not start:\n  no such luck"):
        processes.wait_for_port(process, processes.free_port(), name="Lucky", log=log)

    assert processes.stop(process) == 3
