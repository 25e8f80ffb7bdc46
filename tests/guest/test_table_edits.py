"""The tables that a running Linux made, found and changed from outside."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from harness.address_book import AddressBook
from harness.errors import HarnessError, InfraError
from harness.evidence import read_journal
from harness.scenario.edit import Edit
from harness.session import AttachedDevice, Session
from harness.table_edit import break_entry, tables_of, walk_of
from harness.vtd.registers import DEFAULT_BASE, GCMD, GSTS, VER, GlobalCommand, GlobalStatus
from harness.vtd.source_id import SourceId

pytestmark = pytest.mark.guest

IOVA = 0x100000


@dataclass
class Attacker:
    """An edu in a domain of its own that maps one buffer at IOVA."""

    session: Session

    @property
    def device(self) -> AttachedDevice:
        return self.session.device("rogue")

    def broken(self, **edit) -> None:
        break_entry(self.session, self.device, Edit(**edit), IOVA)

    def lands(self) -> bool:
        """Whether a write to IOVA arrives; what it carries is brought into the device before."""
        payload = secrets.token_bytes(64)
        before = self.session.contents("own")
        self.session.engine(self.device).write(self.session, self.device, IOVA, payload, purpose="control")
        after = self.session.contents("own")
        assert after in (before, payload + before[64:])
        return after != before

    def repeats(self) -> bool:
        """The same without any other DMA than the write: what the device holds already is not what stands there."""
        self.session.guest.machine.memory.write(self.session.book.buffers["own"].pages[0], bytes(64))
        self.session.call("device_write", device="rogue", address=IOVA, length=64, purpose="control")
        return self.session.contents("own")[:64] != bytes(64)


@pytest.fixture
def attacker(restored) -> Iterator[Attacker]:
    from harness.devices.edu import CopyChannel

    with restored(own_memory=True) as guest:
        journal = guest.machine.journal
        session = Session(guest, journal, {}, raw=False, unbroken=False, book=AddressBook(translated=True))
        qdev = {"driver": "edu", "id": "rogue", "bus": "rp0", "dma_mask": 0xFFFF_FFFF_FFFF_FFFF}
        session.plug(AttachedDevice(name="rogue", model="edu", slot=0, qdev=qdev, engine=CopyChannel()))
        session.enter_domain(session.device("rogue"), "domain")
        session.create_buffer("own", 4096, secrets.token_bytes(64))
        session.call("domain_map", domain="domain", buffer="own", iova=IOVA, size=4096, access="rw")
        yield Attacker(session)


def test_a_walk_from_outside_ends_where_the_guest_mapped_the_buffer(attacker) -> None:
    seen = walk_of(attacker.session, attacker.device, IOVA)
    assert [step.table for step in seen.steps] == ["root", "context", "level-4", "level-3", "level-2", "level-1"]
    assert seen.address == attacker.session.book.buffers["own"].pages[0], seen.explain()
    beside = walk_of(attacker.session, attacker.device, IOVA + 0x1000)
    assert beside.address is None, beside.explain()
    told = tables_of(attacker.session, attacker.device, IOVA, "a write")
    assert (told["translation"], told["levels"], told["recipe"]) == ("legacy", 4, "a write")


def test_a_broken_entry_refuses_and_a_healed_one_does_not(attacker) -> None:
    assert attacker.lands()
    attacker.broken(entry="context", field="present", value=0)
    assert not attacker.lands()
    attacker.session.patches.heal("rogue")
    assert attacker.lands()


def test_what_is_changed_in_memory_alone_hides_behind_the_caches_of_the_unit(attacker) -> None:
    machine = attacker.session.guest.machine
    attacker.broken(entry="context", field="present", value=0)
    (patch,) = attacker.session.patches.made
    attacker.session.patches.heal()
    assert attacker.lands()

    machine.memory.write(patch.address, patch.new)
    assert attacker.repeats(), "the translation was not cached, so this test shows nothing"
    kept = GlobalStatus(machine.register(DEFAULT_BASE + GSTS)).kept
    machine.set_register(DEFAULT_BASE + GCMD, kept | GlobalCommand.set_root_table.mask)
    assert not attacker.repeats()


def test_an_entry_is_found_behind_one_that_is_broken(attacker) -> None:
    attacker.broken(entry="rtaddr", field="table", value="hole")
    attacker.broken(entry="root", field="present", value=0)
    attacker.broken(entry="leaf", field="write", value=0)
    attacker.broken(entry="leaf", field="read", value=0)
    assert not attacker.lands()
    assert [patch.what for patch in attacker.session.patches.made] == [
        "rtaddr.table=hole", "root.present=0", "leaf.write=0", "leaf.read=0",
    ]  # fmt: skip
    attacker.session.patches.heal()
    assert attacker.lands()
    assert walk_of(attacker.session, attacker.device, IOVA).address is not None


def test_an_edit_that_cannot_be_made_is_told(attacker) -> None:
    with pytest.raises(HarnessError, match=r"context\.present=1 changes nothing"):
        attacker.broken(entry="context", field="present", value=1)
    with pytest.raises(HarnessError, match="have no entry 'pasid'"):
        attacker.broken(entry="pasid", field="present", value=0)
    with pytest.raises(HarnessError, match="is not enabled"):
        attacker.broken(entry="irte", field="present", value=0)
    assert attacker.lands()


def test_what_the_guest_changed_meanwhile_is_not_overwritten(attacker) -> None:
    attacker.broken(entry="leaf", field="write", value=0)
    (patch,) = attacker.session.patches.made
    changed = bytes(8)
    attacker.session.guest.machine.memory.write(patch.address, changed)
    with pytest.raises(InfraError, match="the guest has changed the entry"):
        attacker.session.patches.heal("rogue")
    assert attacker.session.guest.machine.memory.read(patch.address, 8) == changed


def test_all_is_healed_at_the_end_even_where_the_guest_is_in_the_way(attacker) -> None:
    attacker.broken(entry="context", field="present", value=0)
    attacker.session.heal()
    assert attacker.lands()
    attacker.broken(entry="leaf", field="write", value=0)
    attacker.session.guest.machine.memory.write(attacker.session.patches.made[0].address, bytes(8))
    attacker.session.heal()


def test_the_device_interrupts_and_a_broken_interrupt_entry_keeps_that_from_coming(attacker) -> None:
    session, machine = attacker.session, attacker.session.guest.machine

    def come() -> int:
        before = session.call("device_msi_enable", device="rogue")["count"]
        session.call("device_msi_raise", device="rogue", purpose="control")
        return int(session.call("device_msi_count", device="rogue", above=before, timeout_s=1.0)["count"]) - before

    assert come() == 1
    attacker.broken(entry="irte", field="source_id", value=SourceId.parse("13:01.1").value)
    assert come() == 0
    session.patches.heal()
    assert come() == 1
    assert machine.qtest is not None
    assert machine.qtest.read(DEFAULT_BASE + VER, 4) == machine.register(DEFAULT_BASE + VER)


def test_the_journal_tells_every_change_with_its_place_and_bytes(attacker, tmp_path) -> None:
    attacker.broken(entry="context", field="present", value=0)
    assert not attacker.lands()
    attacker.session.patches.heal()
    told = [entry for entry in read_journal(tmp_path / "restored" / "journal.jsonl") if entry.source == "tables"]
    changes = [entry for entry in told if entry.kind != "command"]
    assert [entry.kind for entry in changes] == ["broken", "mended", "broken-again", "healed"]
    first, last = changes[0].data, changes[-1].data
    assert first["address"] == last["address"] == walk_of(attacker.session, attacker.device, IOVA).steps[1].address
    assert (first["old"], first["new"]) == (last["new"], last["old"])
    assert len([entry for entry in told if entry.kind == "command"]) == len(changes)
