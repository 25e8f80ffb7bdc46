"""What a step may touch on a bare machine: its tables, the unit's registers, the devices, memory, and the journal."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from harness.bare.layout import INTERRUPT_TABLE, PAGE, QUEUE, STATUS, Laid, Layout
from harness.bare.pci import Function, PciBuses
from harness.errors import HarnessError, InfraError
from harness.evidence import Entry, Journal
from harness.machine.bare import BareMachine
from harness.machine.spec import Translation
from harness.testimony import fault_data
from harness.vtd.fault_record import FaultRecord, record_offset
from harness.vtd.interrupts import InterruptRemapEntry
from harness.vtd.invalidation import DescriptorType, InvalidationWait
from harness.vtd.registers import (
    CAP,
    FEADDR,
    FECTL,
    FEDATA,
    FSTS,
    GCMD,
    GSTS,
    IQA,
    IQH,
    IQT,
    IRTA,
    RTADDR,
    Capability,
    FaultEventControl,
    FaultStatus,
    GlobalCommand,
    GlobalStatus,
    InterruptRemapTableAddress,
    InvalidationQueueAddress,
    RootTableAddress,
    TableMode,
)
from harness.vtd.source_id import SourceId
from harness.vtd.structure import Structure
from harness.witnesses.host_trace import (
    EVENT_SENT,
    FAULT_DISABLED,
    WATCHED,
    dmar_fault,
    folded,
    read_trace,
    recorded_fault,
    sent_event,
)

S = TypeVar("S", bound=Structure)

#: Entries of the interrupt remapping table are 2^(this+1).
_INTERRUPT_TABLE_SIZE = 3

#: What clears overflow and queue error: register, value, size.
_NO_STATUS = (FSTS, FaultStatus.overflow.mask | FaultStatus.queue_error.mask, 4)


class Edit(Protocol):
    """How one entry, or one register that names a table, is broken (`harness.scenario.edit`)."""

    @property
    def entry(self) -> str:
        """The name of the entry."""

    def applied(self, whole: S) -> S:
        """Give the entry as it is when broken."""


class Engine(Protocol):
    """How a device of a bare machine is made to issue a DMA; see `harness.bare.edu`."""

    def prepare(self, device: BareDevice) -> None:
        """Do what must be done for the next DMAs as long as the tables are whole."""

    def compose(self, length: int) -> bytes:
        """Make a payload of `length` bytes that the device is able to write."""

    def carry(self, device: BareDevice, payload: bytes) -> None:
        """Make ready that the next `write` writes exactly `payload`."""

    def write(self, device: BareDevice, address: int, payload: bytes, *, purpose: str) -> None:
        """Make the device write `payload` to the bus address `address`, announced for `purpose`."""

    def read(self, device: BareDevice, address: int, length: int, *, purpose: str) -> None:
        """Make the device read `length` bytes at the bus address `address`, announced for `purpose`."""

    def held(self, device: BareDevice, length: int) -> bytes | None:
        """Give the first `length` bytes that the device has read last, whatever the tables are; None for nothing."""

    def interrupt(self, device: BareDevice, address: int, data: int) -> None:
        """Make the device request the interrupt `data` at `address`, announced."""


@dataclass(frozen=True, slots=True)
class BareDevice:
    """A device under test: its name and model, its PCI function, and what makes it issue a DMA."""

    name: str
    model: str
    pci: Function
    engine: Engine

    @property
    def function(self) -> str:
        """Its PCI address as the journal writes it (`0000:01:00.0`)."""
        return f"0000:{self.pci.address}"

    @property
    def source(self) -> SourceId:
        """The requester ID that its requests carry."""
        return self.pci.source


@dataclass(slots=True)
class BareSession:
    """A bare machine at work. `unbroken` tells that steps leave the tables whole (the counter-proof of that name)."""

    machine: BareMachine
    journal: Journal
    buses: PciBuses
    translation: Translation
    levels: int
    unbroken: bool
    devices: dict[str, BareDevice] = field(default_factory=dict)
    _layout: Layout | None = None
    _laid: dict[int, bytes] = field(default_factory=dict)
    _dirty: set[int] = field(default_factory=set)
    _record_at: int = 0
    _trace_offset: int = 0

    def abort(self) -> Exception | None:
        """What makes further waiting and further steps pointless."""
        return self.machine.abort()

    def device(self, name: str) -> BareDevice:
        """Give the device under test called `name`."""
        return self.devices[name]

    @property
    def layout(self) -> Layout:
        """Where everything lies; HarnessError before `lay`."""
        if self._layout is None:
            raise HarnessError("the tables of the bare machine have not been laid")
        return self._layout

    # -- the journal ------------------------------------------------------------------------------------------------

    def record(self, kind: str, **data: Any) -> Entry:
        """Record an observation of the current step, for the judge."""
        return self.journal.record("observation", kind, **data)

    def watch(self) -> None:
        """Switch QEMU's trace of faults on, and record that it is: silence then means that nothing was."""
        events = (*WATCHED, EVENT_SENT)
        self.machine.trace(events, on=True)
        self.journal.record("trace", "watching", events=list(events))

    def trace(self) -> None:
        """Record what QEMU traced since the last time; runs of alike faults are folded into one entry."""
        texts, self._trace_offset = self.machine.trace_lines(self._trace_offset)
        lines, unknown = read_trace(texts)
        for text in unknown:
            self.journal.record("trace", "unread", text=text)
        faults = [(line, fault) for line in lines if (fault := dmar_fault(line)) is not None]
        for line, fault in folded(faults):
            self.journal.record("trace", "fault", t=line.t, **fault_data(fault))
        disabled = Counter(line.event for line in lines)[FAULT_DISABLED]
        if disabled:
            self.journal.record("trace", "disabled", count=disabled)
        for line in lines:
            recorded, event = recorded_fault(line), sent_event(line)
            if recorded is not None:
                source, reason = recorded
                self.journal.record("trace", "recorded", t=line.t, source_id=str(source), reason=reason, text=line.text)
            elif event is not None:
                self.journal.record("trace", "event", t=line.t, address=event[0], data=event[1])

    # -- memory -----------------------------------------------------------------------------------------------------

    def read_physical(self, address: int, length: int, *, label: str) -> bytes:
        """Read memory, journalled under `label` with its digest and first 32 bytes."""
        data = self.machine.read(address, length)
        digest = hashlib.sha256(data).hexdigest()
        self.journal.record(
            "memory", "read", label=label, gpa=address, size=length, sha256=digest, data=data[:32].hex()
        )
        return data

    def write_physical(self, address: int, data: bytes) -> None:
        """Write memory."""
        self.machine.write(address, data)

    # -- tables -----------------------------------------------------------------------------------------------------

    def lay(self) -> Layout:
        """Lay whole tables for all devices, have the unit use them, and make it forget what it knew."""
        if self._layout is None:
            self._lay_first()
        for gpa in self._dirty:
            self.machine.write(gpa, self._laid[gpa])
        self._dirty.clear()
        self.use_tables()
        for device in self.devices.values():
            device.engine.prepare(device)
        return self.layout

    def edit(self, device: str, edits: Sequence[Edit]) -> None:
        """Break entries on the way of `device`'s mapped address, or registers, and make the unit see it."""
        entries = {laid.name: laid for laid in self.layout.entries(device)}
        entries["leaf"] = self.layout.entries(device)[-1]
        root = self.root_register
        broken: dict[int, Structure] = {}
        for edit in edits:
            if edit.entry == "rtaddr":
                root = edit.applied(root)
                continue
            laid = self._entry(entries, edit.entry)
            broken[laid.gpa] = edit.applied(broken.get(laid.gpa, laid.whole))
        for gpa, entry in broken.items():
            self._write_entry(gpa, entry)
        self.use_tables(root)

    def _entry(self, entries: Mapping[str, Laid], name: str) -> Laid:
        if name not in entries:
            raise HarnessError(f"there is no entry '{name}' in {self.translation} tables of {self.levels} levels")
        return entries[name]

    def _write_entry(self, gpa: int, entry: Structure) -> None:
        data = entry.encode()
        before = self.machine.read(gpa, len(data))
        self._dirty.add(gpa)
        self.machine.write(gpa, data)
        self.journal.record("tables", "edit", gpa=gpa, before=before.hex(), after=data.hex(), entry=str(entry))

    def _lay_first(self) -> None:
        sources = {device.name: device.source for device in self.devices.values()}
        layout = Layout(self.translation, self.levels, sources)
        self._layout = layout
        for area in layout.areas():
            self.machine.write(area.start, bytes(len(area)))
        entries: dict[int, bytes] = {}
        for laid in layout.all_entries():
            entries[laid.gpa] = laid.whole.encode()
        for gpa, data in entries.items():
            self.machine.write(gpa, data)
        self._laid = entries
        capability = Capability(self.machine.register(CAP, 8))
        self._record_at = record_offset(capability)

    @property
    def root_register(self) -> RootTableAddress:
        """The whole register that names the root table."""
        mode = TableMode.LEGACY if self.translation == "legacy" else TableMode.SCALABLE
        return RootTableAddress.of(table=self.layout.root, mode=mode)

    def use_tables(self, root: RootTableAddress | None = None) -> None:
        """Set the root table (that of `lay`, if none is given) and enable translation.

        Setting it makes QEMU forget what it had cached:

        vtd_handle_gcmd_srtp in hw/i386/intel_iommu.c calls vtd_reset_caches.
        """
        kept = GlobalStatus(self.machine.register(GSTS)).kept
        self.machine.set_registers(
            (RTADDR, (root or self.root_register).raw, 8),
            (GCMD, kept | GlobalCommand.set_root_table.mask, 4),
            (GCMD, kept | GlobalCommand.translation.mask, 4),
        )

    @contextmanager
    def untranslated(self) -> Iterator[None]:
        """With translation off; it is on again afterwards, and QEMU has forgotten what it had cached."""
        kept, bit = GlobalStatus(self.machine.register(GSTS)).kept, GlobalCommand.translation.mask
        self.machine.set_register(GCMD, kept & ~bit)
        yield
        self.machine.set_register(GCMD, kept | bit)

    def command(self, bits: Any) -> None:
        """Give a one-shot command; what is enabled stays enabled."""
        status = GlobalStatus(self.machine.register(GSTS))
        self.machine.set_register(GCMD, status.kept | bits.mask)

    # -- fault registers --------------------------------------------------------------------------------------------

    def fault_record(self) -> tuple[FaultStatus, FaultRecord]:
        """Read the fault status and the fault record, and journal them raw."""
        fsts, low, high, fectl = self.machine.registers(
            (FSTS, 4), (self._record_at, 8), (self._record_at + 8, 8), (FECTL, 4)
        )
        self.journal.record("register", "fault", fsts=fsts, low=low, high=high, fectl=fectl)
        return FaultStatus(fsts), FaultRecord.from_halves(low, high)

    def clear(self) -> None:
        """Clear the fault record and the fault status, the record first: the status follows it."""
        self.machine.set_registers(self._no_record, _NO_STATUS)

    def clear_record(self) -> None:
        """Clear the fault bit of the record."""
        self.machine.set_registers(self._no_record)

    def clear_status(self) -> None:
        """Clear overflow and queue error."""
        self.machine.set_registers(_NO_STATUS)

    @property
    def _no_record(self) -> tuple[int, int, int]:
        # 4 bytes: QEMU takes the upper half of the record's upper register by itself.
        return self._record_at + 12, FaultRecord.fault.mask >> 96, 4

    def fault_event(self, *, masked: bool, address: int = 0xFEE0_0000, data: int = 0x41) -> None:
        """Program the message that a fault sends, and whether it is masked."""
        self.machine.set_register(FEDATA, data)
        self.machine.set_register(FEADDR, address)
        self.machine.set_register(FECTL, FaultEventControl.interrupt_mask.mask if masked else 0)

    # -- interrupts -------------------------------------------------------------------------------------------------

    def lay_interrupts(self, entries: Mapping[int, InterruptRemapEntry], register: InterruptRemapTableAddress) -> None:
        """Lay these entries of the interrupt remapping table, all others zero, and have the unit use the table."""
        self.machine.write(INTERRUPT_TABLE, bytes(PAGE))
        for index, entry in entries.items():
            self.machine.write(INTERRUPT_TABLE + index * entry.SIZE, entry.encode())
        self.machine.set_register(IRTA, register.raw, 8)
        self.command(GlobalCommand.set_interrupt_table)
        self.command(GlobalCommand.interrupt_remapping)

    @property
    def interrupt_register(self) -> InterruptRemapTableAddress:
        """The whole register that names the interrupt remapping table: 16 entries."""
        return InterruptRemapTableAddress.of(table=INTERRUPT_TABLE, size=_INTERRUPT_TABLE_SIZE)

    # -- the invalidation queue -------------------------------------------------------------------------------------

    def open_queue(self, *, wide: bool, base: int = QUEUE) -> None:
        """Begin an empty invalidation queue of 256 descriptors of 16 bytes, or of 128 of 32 where `wide`."""
        if GlobalStatus(self.machine.register(GSTS)).queued_invalidation:
            self._close_queue()
        self.machine.write(QUEUE, bytes(PAGE))
        self.machine.set_register(IQT, 0, 8)
        self.machine.set_register(IQA, InvalidationQueueAddress.of(base=base, wide=int(wide)).raw, 8)
        self.command(GlobalCommand.queued_invalidation)

    def _close_queue(self) -> None:
        """Let go of the queue; QEMU does so only behind a wait descriptor (vtd_queued_inv_disable_check)."""
        self.clear_status()
        queue = InvalidationQueueAddress(self.machine.register(IQA, 8))
        wait = InvalidationWait.of(type=DescriptorType.WAIT, status_write=1, status_address=STATUS)
        size = 2 * wait.SIZE if queue.wide else wait.SIZE
        head = self.machine.register(IQH, 8)
        self.machine.write(queue.base + head, wait.raw.to_bytes(size, "little"))
        self.machine.set_register(IQT, head + size, 8)
        status = GlobalStatus(self.machine.register(GSTS))
        self.machine.set_register(GCMD, status.kept & ~GlobalCommand.queued_invalidation.mask)
        if GlobalStatus(self.machine.register(GSTS)).queued_invalidation:
            raise InfraError("the unit does not let go of its invalidation queue")

    def submit(self, descriptor: bytes) -> None:
        """Put one descriptor at the tail of the queue and move the tail on."""
        tail = self.machine.register(IQT, 8)
        self.machine.write(QUEUE + tail, descriptor)
        self.machine.set_register(IQT, tail + len(descriptor), 8)

    def queue_state(self) -> dict[str, int]:
        """Read status, head and tail of the queue, and journal them raw."""
        state = {
            "fsts": self.machine.register(FSTS),
            "head": self.machine.register(IQH, 8),
            "tail": self.machine.register(IQT, 8),
        }
        self.journal.record("register", "queue", **state)
        return state

    @property
    def status_word(self) -> int:
        """The guest-physical address that wait descriptors may write to."""
        return STATUS
