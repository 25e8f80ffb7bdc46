from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest

from harness.errors import InfraError
from harness.host import slots
from harness.host.resources import Amount, cores, memory_mib
from harness.host.slots import GUEST_MIB, GuestSlots, capacity, found_capacity
from harness.process import Process
from harness.waiting import Deadline, wait_for

HOLDER = """
import sys
from pathlib import Path
from harness.host.slots import GuestSlots
with GuestSlots(Path(sys.argv[1]), int(sys.argv[2]), "as told").taken(lambda text: print(text, flush=True)):
    print("taken", flush=True)
    sys.stdin.read()
print("freed", flush=True)
"""


@contextmanager
def holder(locks, count):
    """Another process that takes a place and keeps it until its input ends."""
    argv = [sys.executable, "-c", HOLDER, str(locks), str(count)]
    with subprocess.Popen(argv, bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def line_of(process):
    """What it says next; it must say something."""
    ready, _, _ = select.select([process.stdout], [], [], 10)
    assert ready, "it says nothing"
    return process.stdout.readline().decode()


@pytest.mark.parametrize(
    ("core", "mib", "guests"),
    [
        (2, 23000, 2),
        (64, 23000, 23000 // GUEST_MIB),
        (16, 2 * GUEST_MIB, 2),
        (16, 2 * GUEST_MIB - 1, 1),
        (1, 23000, 1),
        (4, 100, 1),
    ],
)
def test_a_guest_has_a_core_and_its_memory_and_one_may_always_run(core, mib, guests):
    found = capacity(Amount(core, "affinity"), Amount(mib, "available"))
    assert found.guests == guests
    assert ("1 core," if core == 1 else f"{core} cores,") in found.reason
    assert f"memory for {mib // GUEST_MIB} ({mib} MiB available, {GUEST_MIB} each)" in found.reason


def test_what_sets_the_bound_is_named():
    reason = capacity(Amount(1, "quota of /sys/fs/cgroup/ci"), Amount(900, "left by /sys/fs/cgroup/ci")).reason
    assert reason == (
        f"1 core (quota of /sys/fs/cgroup/ci), memory for 1 (900 MiB left by /sys/fs/cgroup/ci, {GUEST_MIB} each)"
    )


def test_the_environment_goes_before_what_was_found(monkeypatch, tmp_path):
    monkeypatch.setenv("VTD_GUESTS", "7")
    found = GuestSlots.of(tmp_path)
    assert (found.count, found.reason) == (7, "asked for by VTD_GUESTS")


@pytest.mark.parametrize("nonsense", ["0", "-1", "two", "1.5", "²", " "])
def test_nonsense_in_the_environment_is_refused(nonsense):
    with pytest.raises(InfraError, match="VTD_GUESTS is"):
        found_capacity(nonsense)


@pytest.mark.parametrize("nothing", [None, ""])
def test_without_it_this_host_is_looked_at(nothing):
    assert 1 <= found_capacity(nothing).guests <= len(os.sched_getaffinity(0))


MEMINFO = "MemTotal: 9000000 kB\nMemAvailable: 4096000 kB\n"
V2, V1 = "0::/ci/job\n", "5:cpu,cpuacct:/ci/job\n4:memory:/ci/job\n0::/\n"


def tree(root, cgroup, files):
    for name, text in {"proc/meminfo": MEMINFO, "proc/self/cgroup": cgroup, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("cgroup", "files", "mib", "source"),
    [
        ("", {}, 4000, "available"),
        (V2, {"sys/fs/cgroup/ci/job/memory.max": "max\n", "sys/fs/cgroup/ci/job/memory.current": "1\n"}, 4000, "avail"),
        (
            V2,
            {
                "sys/fs/cgroup/ci/memory.max": f"{2000 << 20}\n",
                "sys/fs/cgroup/ci/memory.current": f"{900 << 20}\n",
                "sys/fs/cgroup/ci/memory.stat": f"anon 5\ninactive_file {400 << 20}\n",
            },
            1500,
            "cgroup/ci",
        ),
        (
            V1,
            {
                "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{1000 << 20}\n",
                "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{1200 << 20}\n",
            },
            0,
            "cgroup/memory",
        ),
        (
            V1,
            {
                "sys/fs/cgroup/memory/ci/job/memory.limit_in_bytes": "9223372036854771712\n",
                "sys/fs/cgroup/memory/ci/job/memory.usage_in_bytes": "4096\n",
            },
            4000,
            "available",
        ),
    ],
    ids=["none", "v2-unlimited", "v2-parent", "v1-container", "v1-unlimited"],
)
def test_memory_is_what_the_control_groups_leave(tmp_path, cgroup, files, mib, source):
    found = memory_mib(tree(tmp_path, cgroup, files))
    assert found.value == mib
    assert source in found.source


@pytest.mark.parametrize(
    ("cgroup", "files", "value"),
    [
        ("", {}, 8),
        (V2, {"sys/fs/cgroup/ci/job/cpu.max": "max 100000\n"}, 8),
        (V2, {"sys/fs/cgroup/ci/cpu.max": "250000 100000\n"}, 2),
        (V2, {"sys/fs/cgroup/ci/cpu.max": "50000 100000\n"}, 1),
        (V1, {"sys/fs/cgroup/cpu/ci/job/cpu.cfs_quota_us": "-1\n"}, 8),
        (
            V1,
            {
                "sys/fs/cgroup/cpu/ci/job/cpu.cfs_quota_us": "300000\n",
                "sys/fs/cgroup/cpu/ci/job/cpu.cfs_period_us": "100000\n",
            },
            3,
        ),
    ],
    ids=["none", "v2-unlimited", "v2-parent", "v2-half", "v1-unlimited", "v1"],
)
def test_cores_are_those_of_the_affinity_or_of_a_quota(tmp_path, monkeypatch, cgroup, files, value):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert cores(tree(tmp_path, cgroup, files)).value == value


def test_no_more_processes_have_a_place_than_there_are(tmp_path):
    with holder(tmp_path, 2) as first, holder(tmp_path, 2) as second:
        assert line_of(first) == line_of(second) == "taken\n"
        with holder(tmp_path, 2) as third:
            assert line_of(third) == "waiting for a place: 2 guests run already (as told)\n"
            second.stdin.close()
            assert line_of(second) == "freed\n"
            assert line_of(third) == "taken\n"


def test_a_killed_process_frees_its_place(tmp_path):
    with holder(tmp_path, 1) as first:
        assert line_of(first) == "taken\n"
        first.kill()
        first.wait()
        with holder(tmp_path, 1) as second:
            assert line_of(second) == "taken\n"


def test_a_child_keeps_no_place_of_its_parent(tmp_path):
    places = GuestSlots(tmp_path, 1, "as told")
    with places.taken(print):
        child = Process(["sleep", "100"], stderr=tmp_path / "stderr")
    with child, places.taken(pytest.fail):
        assert child.poll() is None


def test_places_are_taken_within_one_process_too(tmp_path, monkeypatch):
    monkeypatch.setattr(slots, "WAIT_S", 0.1)
    places, told = GuestSlots(tmp_path, 2, "as told"), []
    with places.taken(told.append), places.taken(told.append):
        assert not told
        with pytest.raises(Exception, match="a place for a guest"), places.taken(told.append):
            pass
    assert told == ["waiting for a place: 2 guests run already (as told)"]


def test_waiting_can_be_interrupted(tmp_path):
    with holder(tmp_path, 1) as first:
        assert line_of(first) == "taken\n"
        with holder(tmp_path, 1) as second:
            assert line_of(second).startswith("waiting")
            second.send_signal(signal.SIGINT)
            wait_for("the end of the one that waits", lambda: second.poll() is not None, Deadline.after(10))
            assert second.stdout.read() == b""
