"""The kernel that nobody runs: QEMU takes it, and for one of the images' kind."""

from __future__ import annotations

import re

import pytest

from harness.machine.launch import Machine
from harness.machine.spec import MachineSpec
from harness.machine.stub import STUB_KERNEL, StubImage


@pytest.fixture
def stub(tmp_path) -> StubImage:
    file = tmp_path / "nobody-runs-this"
    file.write_bytes(STUB_KERNEL)
    return StubImage("empty", "empty", kernel=file, initrd=file)


def boot_roms(machine: Machine) -> set[str]:
    """The ROMs among the fw_cfg files: a saved guest knows fw_cfg files by number, and the numbers by what there is."""
    listed = machine.monitor.execute("human-monitor-command", **{"command-line": "info roms"})
    return set(re.findall(r"^fw=(\S+)", listed, re.MULTILINE))


@pytest.mark.qemu
@pytest.mark.parametrize("memory_mib", [64, 2048])
def test_a_machine_stands_with_the_stub(start_machine, stub, memory_mib) -> None:
    with start_machine(MachineSpec(image="empty", memory_mib=memory_mib), stub) as machine:
        assert machine.monitor.execute("query-status")["status"] == "prelaunch"


@pytest.mark.guest
def test_qemu_adds_the_same_roms_as_for_the_kernel_of_an_image(start_machine, stub, guest_image) -> None:
    with start_machine(MachineSpec(image=""), guest_image, name="image") as machine:
        known = boot_roms(machine)
    with start_machine(MachineSpec(image=""), stub, name="stub") as machine:
        assert boot_roms(machine) == known
    assert known
