"""Random mappings that a guest's user space asks VFIO for, found again in the unit's tables from outside."""

from __future__ import annotations

import random
import secrets
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from harness.address_book import PAGE, AddressBook
from harness.machine.outside import walk_tables
from harness.session import STAGING_BASE, STAGING_END, AttachedDevice, Session
from harness.vtd.faults import Access
from harness.vtd.interrupts import INTERRUPT_RANGE
from harness.vtd.walk import Request

pytestmark = pytest.mark.guest

MAPPINGS, LARGEST = 40, 8

#: What a device may do in the end. Linux sets the bit of its first-stage entries for "present" in those of the second
#: stage too, where it means "readable" (DMA_FL_PTE_PRESENT in __domain_mapping of drivers/iommu/intel/iommu.c).
RIGHTS = {"r": {Access.READ}, "w": {Access.READ, Access.WRITE}, "rw": {Access.READ, Access.WRITE}}
#: What is not to be mapped here, because it never is, or is already.
OTHERS = ((INTERRUPT_RANGE.start, INTERRUPT_RANGE.stop), (STAGING_BASE, STAGING_END))

REFUSED = {Access.READ: 6, Access.WRITE: 5}


@dataclass(frozen=True)
class Mapping:
    """One mapping: where the device has it, and where the guest's kernel says that each page lies."""

    iova: int
    pages: tuple[int, ...]
    access: str

    @property
    def end(self) -> int:
        return self.iova + PAGE * len(self.pages)


def places(dice: random.Random) -> Iterator[tuple[int, int]]:
    """Random ranges (address, pages), some of them right behind another, none where nothing can be mapped."""
    taken = list(OTHERS)
    while True:
        pages = dice.randint(1, LARGEST)
        width = dice.choice([24, 32, 39, 47])
        begin = dice.choice(taken)[1] if dice.random() < 0.3 else dice.randrange(1 << 20, 1 << width) & -PAGE
        end = begin + pages * PAGE
        if end <= 1 << 47 and all(end <= low or high <= begin for low, high in taken):
            taken.append((begin, end))
            yield begin, pages


@pytest.fixture
def session(restored) -> Iterator[Session]:
    """A machine with a device in a domain of its own that maps nothing but its staging page."""
    from harness.devices.edu import CopyChannel

    with restored() as guest:
        made = Session(guest, guest.machine.journal, {}, raw=False, unbroken=False, book=AddressBook(translated=True))
        qdev = {"driver": "edu", "id": "rogue", "bus": "rp0", "dma_mask": 0xFFFF_FFFF_FFFF_FFFF}
        made.plug(AttachedDevice(name="rogue", model="edu", slot=0, qdev=qdev, engine=CopyChannel()))
        made.enter_domain(made.device("rogue"), "domain")
        yield made


def test_the_tables_lead_where_user_space_asked_for_and_nowhere_else(session) -> None:
    seed = secrets.randbits(32)
    dice = random.Random(seed)  # noqa: S311 - places, not secrets
    source = session.device("rogue").source
    mapped: list[Mapping] = []
    ranges = places(dice)
    for number in range(MAPPINGS):
        iova, count = next(ranges)
        access = dice.choice(list(RIGHTS))
        # A page more than is mapped, and one before: what lies beside it in memory is not to be reached.
        made = session.call("buffer_create", name=f"b{number}", size=(count + 2) * PAGE)
        session.call(
            "domain_map",
            domain="domain", buffer=f"b{number}", iova=iova, offset=PAGE, size=count * PAGE, access=access,
        )  # fmt: skip
        mapped.append(Mapping(iova, tuple(made["pages"][1:-1]), access))

    def holds(expected: list[Mapping]) -> None:
        """Whether exactly `expected` is what the unit's tables have, around every mapping there ever was."""
        targets = {each.iova + PAGE * n: (page, each) for each in expected for n, page in enumerate(each.pages)}
        around = {iova for each in mapped for iova in range(each.iova - PAGE, each.end + PAGE, PAGE)}
        for iova in sorted(iova for iova in around if not any(low <= iova < high for low, high in OTHERS)):
            offset = dice.randrange(PAGE)
            for access in Access:
                seen = walk_tables(session.guest.machine, Request(source, iova + offset, access))
                target, owner = targets.get(iova, (0, None))
                told = f"seed {seed}: {owner}\n{seen.explain()}"
                if owner is not None and access in RIGHTS[owner.access]:
                    assert (seen.address, seen.reason) == (target + offset, None), told
                else:
                    assert (seen.address, seen.reason) == (None, REFUSED[access]), told

    holds(mapped)
    gone = set(dice.sample(range(MAPPINGS), MAPPINGS // 2))
    for number in gone:
        each = mapped[number]
        size = PAGE * len(each.pages)
        assert session.call("domain_unmap", domain="domain", iova=each.iova, size=size) == {"unmapped": size}
    holds([each for number, each in enumerate(mapped) if number not in gone])
