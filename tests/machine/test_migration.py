"""Machines saved and restored for real, though none of them runs a kernel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import InfraError
from harness.evidence import read_journal
from harness.machine.launch import Machine
from harness.machine.migration import copy_data, data_extents, restore, save
from harness.machine.spec import IommuSpec, MachineSpec
from harness.machine.template import RAM, STATE, Template
from harness.process import group_members
from harness.templates.making import digest
from harness.waiting import Deadline, wait_for

SPEC = MachineSpec(
    image="empty",
    memory_mib=64,
    iommus=(IommuSpec({"intremap": True, "caching_mode": True}),),
    wires=("w0",),
    root_ports=2,
)

#: Where the guest's firmware, that being all that ever runs, has nothing.
PLACE = 0x140_0000
SAVED, OTHER = b"saved" * 1000, b"other" * 1000

Restored = Callable[..., Machine]


@pytest.fixture
def template(start_machine, empty_image, tmp_path) -> Template:
    """A machine with SAVED in its memory, saved before its first instruction."""
    directory = tmp_path / "template"
    directory.mkdir()
    ram = directory / RAM
    ram.touch()
    with start_machine(SPEC, empty_image, name="maker", kept_memory=ram) as machine:
        with ram.open("r+b") as file:
            file.seek(PLACE)
            file.write(SAVED)
        assert machine.memory.read(PLACE, len(SAVED)) == SAVED, "the file is not the guest's memory"
        machine.save(directory / STATE)
    return Template(key="0" * 24, directory=directory, host_public="ssh-ed25519 AAAA", greeting=b"SSH-2.0-x\r\n")


@pytest.fixture
def restored(start_machine, empty_image, template) -> Restored:
    """Start a machine from the template, of its own shape or another, with its files in a directory called `name`."""

    def start(name: str = "restored", *, spec: MachineSpec = SPEC, own_memory: bool = False) -> Machine:
        return start_machine(spec, empty_image, name=name, template=template, own_memory=own_memory)

    return start


@pytest.mark.qemu
def test_a_restored_machine_has_the_memory_and_a_halted_cpu(restored, template, tmp_path) -> None:
    with restored() as machine:
        assert machine.restored
        assert machine.memory.read(PLACE, len(SAVED)) == SAVED
        assert not machine.monitor.execute("query-status")["running"]
        assert machine.register(0xFED9_0000) == 0x10, "VT-d version register: 1.0"
        assert machine.keys.host_public == template.host_public
    entries = read_journal(tmp_path / "restored" / "journal.jsonl")
    told = [(entry.kind, entry.data) for entry in entries if entry.source == "process"]
    assert ("restored", {"template": template.key}) in told


@pytest.mark.qemu
def test_a_booted_machine_is_not_called_restored(halted_machine, tmp_path) -> None:
    assert not halted_machine.restored
    kinds = [entry.kind for entry in read_journal(tmp_path / "variant" / "journal.jsonl")]
    assert "restored" not in kinds


@pytest.mark.qemu
def test_devices_are_plugged_into_a_restored_machine(restored) -> None:
    with restored() as machine:
        machine.device_add({"driver": "edu", "id": "rogue", "bus": "rp0"})
        machine.device_add({"driver": "e1000e", "id": "nic", "bus": "rp1", "netdev": "w0"})


@pytest.mark.qemu
def test_what_a_restored_guest_writes_stays_with_it(restored, template) -> None:
    before = digest(template.ram), digest(template.state)
    with restored("one") as one, restored("two") as two:
        vectors = one.memory.read(0, 1024)
        one.cont()
        wait_for(
            "the firmware to write its interrupt vectors",
            lambda: one.memory.read(0, 1024) != vectors,
            Deadline.after(20),
            abort=[one.abort],
        )
        assert two.memory.read(0, 1024) == vectors
    assert (digest(template.ram), digest(template.state)) == before
    with restored("three") as three:
        assert three.memory.read(0, 1024) == vectors


@pytest.mark.qemu
def test_memory_of_its_own_is_written_from_outside_and_nobody_elses_is(restored, template) -> None:
    before = digest(template.ram)
    with restored("own", own_memory=True) as own, restored("sibling", own_memory=True) as sibling, restored() as mapped:
        assert own.memory.read(PLACE, len(SAVED)) == SAVED
        own.memory.write(PLACE, OTHER)
        assert own.memory.read(PLACE, len(OTHER)) == OTHER
        assert own.memory.read(PLACE + len(OTHER), 16) == bytes(16)
        assert sibling.memory.read(PLACE, len(SAVED)) == SAVED
        assert mapped.memory.read(PLACE, len(SAVED)) == SAVED
    assert digest(template.ram) == before


@pytest.mark.qemu
def test_a_booted_machine_may_have_memory_of_its_own_too(start_machine, empty_image) -> None:
    with start_machine(SPEC, empty_image, own_memory=True) as machine:
        machine.memory.write(PLACE, OTHER)
        assert machine.memory.read(PLACE, len(OTHER)) == OTHER


@pytest.mark.qemu
def test_memory_above_4_gib_is_where_qemu_has_it(start_machine, empty_image) -> None:
    spec = replace(SPEC, memory_mib=3072)  # never touched, so it takes nothing
    with start_machine(spec, empty_image, own_memory=True) as machine:
        for gpa in (0x7FFF_F000, 0x1_0000_0000, 0x1_3FFF_F000):
            machine.memory.write(gpa, OTHER[:4096])
            assert machine.memory.read(gpa, 4096) == OTHER[:4096]


@pytest.mark.qemu
def test_shared_memory_is_not_written_from_outside(restored) -> None:
    with restored() as machine:
        with pytest.raises(InfraError, match="cannot be written from outside") as caught:
            machine.memory.write(PLACE, OTHER)
        assert caught.value.hint == "start the machine with own_memory"
        assert machine.memory.read(PLACE, len(SAVED)) == SAVED


def nothing(template: Template) -> None:
    pass


def truncate(template: Template) -> None:
    state = template.state.read_bytes()
    template.state.write_bytes(state[: len(state) // 2])


def overwrite(template: Template) -> None:
    template.state.write_bytes(b"not a migration stream" * 100)


#: What is done to the template, the machine that is started from it, and QEMU's words.
MISFITS: dict[str, tuple[Callable[[Template], None], MachineSpec, str]] = {
    "truncated state": (truncate, SPEC, "error while loading state section"),
    "garbage": (overwrite, SPEC, "Not a migration stream"),
    "no state": (lambda template: template.state.unlink(), SPEC, "No such file or directory"),
    "no memory": (lambda template: template.ram.unlink(), SPEC, "can't open backing store"),
    "fewer ports": (nothing, replace(SPEC, root_ports=1), "Unknown savevm section or instance '0000:00:03.0/pcie"),
    "no vIOMMU": (nothing, replace(SPEC, iommus=()), "Unknown savevm section or instance 'iommu-intel'"),
    "more memory": (nothing, replace(SPEC, memory_mib=128), "ram backing store size 0x4000000 is too small"),
    "less memory": (nothing, replace(SPEC, memory_mib=32), "Size mismatch: ram"),
}


@pytest.mark.qemu
@pytest.mark.parametrize("name", MISFITS)
def test_what_does_not_fit_is_refused_in_qemus_words(name, restored, template, tmp_path) -> None:
    spoil, spec, words = MISFITS[name]
    spoil(template)
    files = sorted(template.directory.iterdir())
    with pytest.raises(InfraError) as caught:
        restored(spec=spec)
    assert words in str(caught.value)
    entries = read_journal(tmp_path / "restored" / "journal.jsonl")
    (pid,) = [entry.data["pid"] for entry in entries if (entry.source, entry.kind) == ("process", "start")]
    assert group_members(pid) == []
    assert sorted(template.directory.iterdir()) == files, "QEMU made a file of its own"


@pytest.mark.qemu
def test_memory_that_cannot_be_copied_is_told(restored, template) -> None:
    template.ram.unlink()
    with pytest.raises(InfraError, match=f"the memory of template {template.key} cannot be copied"):
        restored(own_memory=True)


@pytest.mark.qemu
def test_a_state_that_cannot_be_written_is_told(start_machine, empty_image, tmp_path) -> None:
    (tmp_path / RAM).touch()
    with (
        start_machine(SPEC, empty_image, kept_memory=tmp_path / RAM) as machine,
        pytest.raises(InfraError, match="No such file or directory"),
    ):
        machine.save(tmp_path / "nowhere" / STATE)


class FailingMonitor:
    """A QEMU whose migration goes on for a while and then ends as it is told."""

    def __init__(self, end: dict[str, str]) -> None:
        self._told = iter([{}, {"status": "setup"}, {"status": "active"}, end])

    def execute(self, command, **_arguments):
        return next(self._told) if command == "query-migrate" else {}


@pytest.mark.parametrize("move", [save, restore])
@pytest.mark.parametrize(
    ("end", "words"),
    [
        ({"status": "failed", "error-desc": "No space left on device"}, "failed: No space left on device"),
        ({"status": "failed"}, "failed: QEMU does not say why"),
        ({"status": "cancelled"}, "cancelled: QEMU does not say why"),
    ],
)
def test_a_migration_that_does_not_complete_is_told(move, end, words) -> None:
    with pytest.raises(InfraError, match=f"'migrate.*' with /t/state: {words}"):
        move(FailingMonitor(end), Path("/t/state"), [])


def sparse(path: Path, size: int, blocks: dict[int, bytes]) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
        for offset, data in blocks.items():
            file.seek(offset)
            file.write(data)
    return path


def test_copies_have_the_bytes_and_the_holes(tmp_path) -> None:
    blocks = {0x3000: b"a" * 4096, 0x8_0000: b"b" * 10_000, 0x1F_F000: b"c" * 4096}
    source = sparse(tmp_path / "source", 2 << 20, blocks)
    target = sparse(tmp_path / "target", 2 << 20, {})
    with target.open("r+b") as file:
        copy_data(source, file.fileno())
    assert target.read_bytes() == source.read_bytes()
    assert target.stat().st_blocks <= source.stat().st_blocks


@pytest.mark.parametrize("size", [0, 1 << 20])
def test_a_hole_has_no_data(size, tmp_path) -> None:
    with sparse(tmp_path / "hole", size, {}).open("rb") as file:
        assert data_extents(file.fileno()) == []


def test_data_between_holes_is_found(tmp_path) -> None:
    blocks = {0x1_0000: b"a" * 4096, 0x4_0000: b"b" * 8192}
    with sparse(tmp_path / "file", 1 << 20, blocks).open("rb") as file:
        extents = data_extents(file.fileno())
    for begin, data in blocks.items():
        assert any(first <= begin and begin + len(data) <= end for first, end in extents)
    assert sum(end - begin for begin, end in extents) < 1 << 20
