"""What a step may touch while it runs: the guest, the devices under test, its memory, and the journal."""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from harness.address_book import PAGE, AddressBook, Buffer
from harness.errors import HarnessError, InfraError
from harness.evidence import Entry, Journal
from harness.log_allowance import LogAllowance
from harness.patches import Patches
from harness.vtd.source_id import SourceId

if TYPE_CHECKING:  # planning imports every step, and needs no guest
    from harness.guest import Guest
    from harness.lab.host_log import HostLog
    from harness.nested.guest import NestedGuest
    from harness.wire import Wire

#: Where a device's staging page appears in its domain: below 2^39, so that a 39-bit unit can map it too.
STAGING_BASE, STAGING_STRIDE = 0x70_0000_0000, 0x10_0000
#: Where it ends; more devices than this has room for, no machine has.
STAGING_END = STAGING_BASE + 0x100 * STAGING_STRIDE

_PLUG_S = 20.0

#: Seconds for QEMU to take a NIC of its host: it resets it, and may have to pin and map all of the guest's memory.
_HANDED_S = 60.0


class Engine(Protocol):
    """How a device of the field is made to issue a DMA; see `harness.devices`."""

    def compose(self, length: int) -> bytes:
        """Make a payload of `length` bytes that the device is able to write."""

    def write(self, session: Session, device: AttachedDevice, address: int, payload: bytes, *, purpose: str) -> None:
        """Make the device write `payload` to the bus address `address`, announced for `purpose`."""

    def read(
        self, session: Session, device: AttachedDevice, address: int, length: int, *, purpose: str
    ) -> bytes | None:
        """Make the device read `length` bytes at `address`; return what it got, None for nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachedDevice:
    """A device under test as the session knows it.

    `qdev` are the properties for `device_add`, `address` the PCI address (`0000:01:00.0`) once it is plugged, `source`
    the requester ID its DMA carries (that of the bridge for a conventional device behind one), `domain` the protection
    domain it is assigned to, `slot` a number that no other device of the scenario has, `guest` the nested guest it was
    handed to, `physical` the NIC that it is a virtual function of. A NIC of the lab host is `driven_as` what it is
    like, and its requests carry `at_host` there.
    """

    name: str
    model: str
    slot: int
    qdev: Mapping[str, Any]
    engine: Engine | None = None
    kernel_driver: str | None = None
    wire: str | None = None
    behind_bridge: bool = False
    address: str | None = None
    source: SourceId | None = None
    domain: str | None = None
    guest: str | None = None
    physical: str | None = None
    driven_as: str | None = None
    at_host: SourceId | None = None

    @property
    def staging(self) -> str:
        """The name of its staging buffer."""
        return f"staging-{self.name}"

    @property
    def staging_iova(self) -> int:
        """Where its domain maps the staging buffer."""
        return STAGING_BASE + self.slot * STAGING_STRIDE


@dataclass(slots=True)
class Session:
    """The running machine as steps see it.

    `raw` tells that a protection was taken away: there is no domain to put a device in, so devices are driven without
    VFIO, by their registers in sysfs, and use guest-physical addresses. `unbroken` tells that steps which break the
    unit's tables leave them as they are. `patches` are the breaks that are there now, `boot_log` is the guest's log up
    to the first step, `listening` is set when the guest agent says that it listens on a NIC. `host_log` is the kernel's
    log of a lab host that has handed out a NIC.
    """

    guest: Guest
    journal: Journal
    wires: Mapping[str, Wire]
    raw: bool
    unbroken: bool
    book: AddressBook
    patches: Patches = field(init=False)
    devices: dict[str, AttachedDevice] = field(default_factory=dict)
    boot_log: Sequence[Entry] = ()
    allowance: LogAllowance = field(default_factory=LogAllowance)
    listening: threading.Event = field(default_factory=threading.Event)
    hosting: Callable[[str], NestedGuest] | None = None
    nested: dict[str, NestedGuest] = field(default_factory=dict)
    beyond: int = 0
    host_log: HostLog | None = None

    def __post_init__(self) -> None:
        self.patches = Patches(self.guest.machine, self.journal)

    def abort(self) -> Exception | None:
        """What makes further waiting and further steps pointless: the machine's end or halt, or a nested guest's halt.

        A nested guest that has ended is for the steps to say: one may be meant to.
        """
        halts = (nested.guest.machine.halted() for nested in list(self.nested.values()))
        return self.guest.machine.abort() or next(filter(None, halts), None)

    def call(self, op: str, /, *, within_s: float = 15.0, **args: Any) -> dict[str, Any]:
        """Ask the guest agent for `op`, for an answer within seconds; OperationRefused tells a refusal."""
        return self.guest.agent.call(op, within_s=within_s, **args)

    def watch(self, events: Sequence[str]) -> None:
        """Switch trace events of QEMU on, and record that QEMU says they are: silence then means that nothing was."""
        self.guest.machine.trace(events, on=True)
        self.journal.record("trace", "watching", events=list(events))

    @contextmanager
    def watching(self, *events: str) -> Iterator[None]:
        """The same for the length of a context."""
        self.watch(events)
        try:
            yield
        finally:
            self.guest.machine.trace(events, on=False)

    def record(self, kind: str, **data: Any) -> Entry:
        """Record an observation of the current step, for the judge."""
        return self.journal.record("observation", kind, **data)

    @contextmanager
    def provoking(self, *, storm: bool = False) -> Iterator[None]:
        """Around a provoked fault: wait first until the guest's log has room for it; a `storm` uses all of it up."""
        if self.raw or self.unbroken:
            yield
            return
        waited = self.allowance.take(everything=storm)
        self.journal.record("runner", "paced", waited_s=round(waited, 2))
        try:
            yield
        finally:
            self.allowance.over()

    def await_room(self) -> None:
        """Wait until the guest's log has room for a fault that nobody expects, and record it if that took a while."""
        if self.raw or self.unbroken:
            return
        waited = round(self.allowance.wait(), 2)
        if waited:
            self.journal.record("runner", "paced", waited_s=waited)

    def heal(self) -> None:
        """At the end of a run: put back what is broken, so that the guest lets go of its devices in peace, if it can.

        The run has been recorded by then, so nothing is lost with a machine that has ended.
        """
        with suppress(HarnessError):
            self.patches.heal()

    def read_log(self) -> list[Entry]:
        """Record what the guest's log holds by now and had not been read, and give it."""
        answer = self.call("kmsg")
        if answer["lost"]:
            self.journal.record("kmsg", "lost")
        return [self.journal.record("kmsg", "line", **entry) for entry in answer["entries"]]

    def begin_anew(self) -> None:
        """After a reboot: nothing of what the guest had made is there, and the devices are found again."""
        self.book = AddressBook(translated=self.book.translated)
        self.boot_log = self.read_log()
        for device in list(self.devices.values()):
            self.update(device, domain=None)
            if device.address is not None:
                self.settle(self.device(device.name))

    # -- devices --------------------------------------------------------------------------------------------------

    def device(self, name: str) -> AttachedDevice:
        """Give the device under test called `name`."""
        return self.devices[name]

    def engine(self, device: AttachedDevice) -> Engine:
        """Give what makes `device` issue a DMA; HarnessError for one that cannot be told to."""
        if device.engine is None:
            raise HarnessError(f"'{device.name}' ({device.model}) cannot be told to issue a DMA")
        return device.engine

    def wire(self, device: AttachedDevice) -> Wire:
        """Give the host's end of the Ethernet wire of `device`."""
        if device.wire is None:
            raise HarnessError(f"device '{device.name}' ({device.model}) has no wire")
        return self.wires[device.wire]

    def plug(self, device: AttachedDevice) -> AttachedDevice:
        """Add a device over QMP and wait until the guest has enumerated it."""
        self.guest.machine.device_add(device.qdev, timeout_s=_PLUG_S if device.at_host is None else _HANDED_S)
        return self.settle(device)

    def settle(self, device: AttachedDevice) -> AttachedDevice:
        """Learn the address of a device that is in the machine, once the guest has enumerated it."""
        address = self.guest.pci_address(device.name)
        facts = self.call("pci_wait", bdf=address, timeout_s=_PLUG_S, within_s=_PLUG_S + 5)
        source = SourceId.parse(address)
        if device.behind_bridge:
            # A PCIe-to-PCI bridge takes the requests from behind it upon itself: its secondary bus, function 0
            # (pci_device_get_iommu_bus_devfn in QEMU's hw/pci/pci.c; PCI Express to PCI Bridge spec 2.3).
            source = SourceId(source.bus << 8)
        self.journal.record("runner", "device", name=device.name, address=address, source_id=str(source), facts=facts)
        return self.update(device, address=address, source=source)

    def make_functions(self, physical: AttachedDevice, macs: Mapping[str, str]) -> None:
        """Have the guest make virtual functions of a NIC under its kernel driver, as many as `macs` has, by name."""
        self.bind_kernel_driver(physical)
        answer = self.call("sriov_enable", bdf=physical.address, macs=list(macs.values()), within_s=60.0)
        for name, address in zip(macs, answer["bdfs"], strict=True):
            facts = self.call("pci", bdf=address)
            source = SourceId.parse(address)
            self.journal.record("runner", "device", name=name, address=address, source_id=str(source), facts=facts)
            self.update(self.device(name), address=address, source=source)

    def unplug(self, device: AttachedDevice) -> AttachedDevice:
        """Remove a device over QMP, and see it gone from QEMU and from the guest."""
        self.guest.machine.device_del(device.name)
        self.call("pci_gone", bdf=device.address, timeout_s=_PLUG_S, within_s=_PLUG_S + 5)
        return self.update(device, address=None, source=None)

    def bind_kernel_driver(self, device: AttachedDevice) -> None:
        """Give a device to its kernel driver and make sure that this drives it."""
        if device.kernel_driver is None:
            raise HarnessError(f"no kernel driver is known for '{device.name}' ({device.model})")
        self.call("bind", bdf=device.address, driver=device.kernel_driver, within_s=30.0)

    def enter_domain(self, device: AttachedDevice, domain: str) -> None:
        """Assign a device to a protection domain and open it for its engine; raw, it is opened without one."""
        if device.staging not in self.book.buffers:
            self.create_buffer(device.staging, PAGE, fresh_bytes(64))
        if self.raw:
            self.call("bind", bdf=device.address, driver=None)
        else:
            self.call("domain_attach", domain=domain, bdf=device.address, within_s=30.0)
            self.call(
                "domain_map", domain=domain, buffer=device.staging, iova=device.staging_iova, size=PAGE, access="rw"
            )
        if device.engine is not None:
            mailbox = {"buffer": device.staging, "iova": None if self.raw else device.staging_iova}
            via = "raw" if self.raw else "vfio"
            opened: dict[str, Any] = {"model": device.driven_as or device.model, "via": via, "mailbox": mailbox}
            if device.at_host is not None:
                opened["medium"] = "loopback"
            self.call("device_open", device=device.name, bdf=device.address, **opened)
        self.update(device, domain=domain)

    def leave_domain(self, device: AttachedDevice) -> None:
        """Close a device and take it out of its domain, which ends with its last device."""
        domain = self.domain_of(device)
        if device.engine is not None:
            self.call("device_close", device=device.name)
        if not self.raw:
            self.call("domain_unmap", domain=domain, iova=device.staging_iova, size=PAGE)
            self.call("domain_detach", bdf=device.address)
        self.update(device, domain=None)
        if all(other.domain != domain for other in self.devices.values()):
            self.book.unmapped(domain)

    def domain_of(self, device: AttachedDevice) -> str:
        """Give the domain a device is assigned to; HarnessError if it is not."""
        if device.domain is None:
            raise HarnessError(f"'{device.name}' is not assigned to any domain")
        return device.domain

    def update(self, device: AttachedDevice, **changes: Any) -> AttachedDevice:
        """Note what has become of a device, and give it as it is now."""
        changed = replace(device, **changes)
        self.devices[device.name] = changed
        return changed

    # -- memory ---------------------------------------------------------------------------------------------------

    def create_buffer(self, name: str, size: int, fill: bytes) -> Buffer:
        """Make a locked, page-aligned buffer in the guest, filled by repeating `fill`, and learn where it lies.

        InfraError if other bytes are found, from outside, where the guest says it is.
        """
        answer = self.call("buffer_create", name=name, size=size, fill=fill.hex(), above=self.beyond, within_s=30.0)
        buffer = Buffer(name, size, tuple(answer["pages"]))
        self.book.add(buffer)
        self.journal.record("runner", "buffer", name=name, size=size, pages=list(buffer.pages))
        for number, page in enumerate(buffer.pages):
            expected = (fill * (PAGE // len(fill) + 1))[number * PAGE % len(fill) :][:PAGE]
            if self.read_physical(page, PAGE, label=f"{name} as filled") != expected:
                raise InfraError(
                    f"buffer '{name}' is not where the guest says: other bytes stand at {page:#x}",
                    hint="a page moved, or /proc/self/pagemap was misread; what the bytes say cannot be trusted",
                )
        return buffer

    def read_physical(self, address: int, length: int, *, label: str) -> bytes:
        """Read guest memory from outside of the guest, journalled under `label` with its digest and first 32 bytes."""
        data = self.guest.machine.memory.read(address, length)
        digest = hashlib.sha256(data).hexdigest()
        self.journal.record(
            "memory", "read", label=label, gpa=address, size=length, sha256=digest, data=data[:32].hex()
        )
        return data

    def contents(self, name: str) -> bytes:
        """Read a whole buffer from outside of the guest, page by page."""
        buffer = self.book.buffers[name]
        size = min(buffer.size, PAGE)
        return b"".join(self.read_physical(page, size, label=name) for page in buffer.pages)


def fresh_bytes(length: int) -> bytes:
    """Random bytes, so that no stale or accidental content can be taken for a payload."""
    return secrets.token_bytes(length)
