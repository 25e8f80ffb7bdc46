"""A machine on another host that does not go on; its QEMU is a real one, kept over pipes instead of SSH."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from harness.errors import InfraError, MachineHalted
from harness.evidence import VariantDirectory
from harness.machine.launch import Machine
from harness.machine.spec import MachineSpec
from harness.nested.machine import start_on
from tests.machine.test_run_states import WAITS, behind, halted
from tests.pipes import PipeSsh

pytestmark = pytest.mark.qemu


@pytest.fixture
def far_machine(qemu_build, empty_image, tmp_path) -> Iterator[Machine]:
    directory = VariantDirectory(tmp_path / "far")
    directory.path.mkdir()
    ssh = PipeSsh()
    ssh.abort = (lambda: InfraError("the platform stands still") if hasattr(ssh, "gone") else None,)
    place = SimpleNamespace(ssh=ssh, qemu=qemu_build)
    spec = MachineSpec(image="empty", memory_mib=64)
    with directory.journal() as journal:
        with start_on(place, spec, image=empty_image, directory=directory, journal=journal) as machine:
            machine.place = ssh
            machine.cont()
            yield machine
            del machine.place
        ssh.close()


def test_it_is_told_that_somebody_halted_it(far_machine) -> None:
    assert far_machine.abort() is None
    behind(far_machine, "stop")
    assert halted(far_machine).state == "paused"


def test_it_is_told_that_its_process_is_stopped(far_machine) -> None:
    os.kill(far_machine.process.pid, signal.SIGSTOP)
    begun = time.monotonic()
    with pytest.raises(MachineHalted, match=r"stopped by a signal \(T\)"):
        far_machine.monitor.execute("query-name", timeout_s=60)
    assert time.monotonic() - begun < 6
    os.kill(far_machine.process.pid, signal.SIGCONT)


@pytest.mark.parametrize("wait", ["a wait", "a command"])
def test_it_is_told_that_what_it_runs_in_stands_still(wait, far_machine) -> None:
    os.kill(far_machine.process.pid, signal.SIGSTOP)
    far_machine.place.gone = True
    begun = time.monotonic()
    try:
        with pytest.raises(InfraError, match="the platform stands still"):
            WAITS[wait](far_machine)
        assert time.monotonic() - begun < 1
    finally:
        del far_machine.place.gone
        os.kill(far_machine.process.pid, signal.SIGCONT)
