"""Changes made from outside to the tables of a running guest, behind its back, and taken back again.

A remapping unit caches what it has walked, so a change in memory alone is none yet. Setting the root table pointer anew
makes QEMU forget everything (vtd_handle_gcmd_srtp and vtd_reset_caches in hw/i386/intel_iommu.c), and its guest is none
the wiser: Linux never reads the pointer back.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.errors import InfraError
from harness.evidence import Journal
from harness.vtd.registers import DEFAULT_BASE, GCMD, GSTS, GlobalCommand, GlobalStatus
from harness.waiting import Deadline, wait_for

if TYPE_CHECKING:  # planning imports every step, and needs no machine
    from harness.machine.launch import Machine

#: Seconds for the unit to take a new pointer; QEMU has done so when the write of the command returns.
_POINTER_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """Bytes changed for `device`: `old` at guest-physical `address` became `new`.

    `what` names the entry and the field, `register` is whether it is a register of the unit instead of memory,
    `interrupts` whether it is part of interrupt remapping, `disables_reports` whether it keeps faults from being told.
    """

    device: str
    what: str
    address: int
    old: bytes
    new: bytes
    register: bool = False
    interrupts: bool = False
    disables_reports: bool = False


@dataclass(slots=True)
class Patches:
    """All patches of a machine that are there now, the oldest first."""

    machine: Machine
    journal: Journal
    made: list[Patch] = field(default_factory=list)

    def make(self, patch: Patch) -> None:
        """Change the bytes, and make the unit forget what it knew of them."""
        self._write(patch, patch.new)
        self.made.append(patch)
        self._effective("broken", [patch])

    def heal(self, device: str | None = None) -> None:
        """Put back what was changed for `device`, or everything.

        InfraError if the guest has changed the same bytes meanwhile: nobody knows then what belongs there.
        """
        mine = [patch for patch in self.made if device in (None, patch.device)]
        for patch in reversed(mine):
            self._put_back(patch)
            self.made.remove(patch)
        if mine:
            self._effective("healed", mine)

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Have everything as the guest made it for the time of a `with` block: for DMA that only prepares another."""
        if not self.made:
            yield
            return
        for patch in reversed(self.made):
            self._put_back(patch)
        made, self.made = self.made, []
        self._effective("mended", made)
        yield
        for patch in made:
            self._write(patch, patch.new)
        self.made = made
        self._effective("broken-again", made)

    def original(self, address: int, data: bytes) -> bytes:
        """Give `data`, as it was read at `address`, as it would be without the patches."""
        whole = bytearray(data)
        for patch in reversed(self.made):
            for place, byte in enumerate(patch.old, start=patch.address - address):
                if 0 <= place < len(whole):
                    whole[place] = byte
        return bytes(whole)

    def of(self, device: str) -> list[Patch]:
        """Give those made for `device`."""
        return [patch for patch in self.made if patch.device == device]

    def _put_back(self, patch: Patch) -> None:
        found = self.machine.memory.read(patch.address, len(patch.new))
        if found != patch.new:
            raise InfraError(
                f"{patch.what} at {patch.address:#x} holds {found.hex()}, not {patch.new.hex()} as it was left",
                hint="the guest has changed the entry: let no step between break and heal change its mappings",
            )
        self._write(patch, patch.old)

    def _write(self, patch: Patch, data: bytes) -> None:
        if patch.register:
            self.machine.set_register(patch.address, int.from_bytes(data, "little"), len(data))
        else:
            self.machine.memory.write(patch.address, data)

    def _effective(self, kind: str, patches: Sequence[Patch]) -> None:
        """Set the table pointers anew and journal what `kind` of change that makes effective."""
        for patch in patches:
            old, new = (patch.new, patch.old) if kind in ("healed", "mended") else (patch.old, patch.new)
            where = f"{patch.what} of '{patch.device}'"
            self.journal.record("tables", kind, what=where, address=patch.address, old=old.hex(), new=new.hex())
        self._command(GlobalCommand.set_root_table.mask, GlobalStatus.root_table_set.mask)
        if any(patch.interrupts for patch in patches):
            self._command(GlobalCommand.set_interrupt_table.mask, GlobalStatus.interrupt_table_set.mask)

    def _command(self, command: int, done: int) -> None:
        def status() -> GlobalStatus:
            return GlobalStatus(self.machine.register(DEFAULT_BASE + GSTS))

        value = status().kept | command
        self.machine.set_register(DEFAULT_BASE + GCMD, value)
        self.journal.record("tables", "command", register="GCMD", value=value)
        taken = Deadline.after(_POINTER_S)
        wait_for("the unit to take the pointer", lambda: status().raw & done, taken, abort=[self.machine.abort])
