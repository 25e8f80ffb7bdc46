"""PCI without firmware: bus numbers, windows and BARs, given out by the harness as a BIOS would.

A device behind root port `rpN` is on bus N+1, one behind the conventional bridge `br0` on bus 0x21.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from harness.errors import InfraError
from harness.machine.argv import FIRST_BRIDGE_SLOT, FIRST_ROOT_PORT_SLOT
from harness.machine.bare import BareMachine
from harness.machine.spec import MachineSpec
from harness.vtd.source_id import SourceId

#: The enhanced configuration area, where every function has 4 KiB (PCIEXBAR of the q35 host bridge, register 0x60).
_ECAM, _PCIEXBAR = 0xB000_0000, 0x60
_ADDRESS_PORT, _DATA_PORT = 0xCF8, 0xCFC

#: Memory windows of the ports, one after the other.
_WINDOWS, _WINDOW = 0xC000_0000, 0x100_0000

_BRIDGE_BUS = 0x20

_COMMAND, _BUSES, _WINDOW_REGISTER, _BAR0, _CAPABILITIES = 0x04, 0x18, 0x20, 0x10, 0x34
_MEMORY_AND_MASTER = 0x6
_CLASS = 0x08
_MSI = 0x05
_EXTENDED = 0x100
_SRIOV = 0x10


@dataclass(frozen=True, slots=True)
class Function:
    """A PCI function that is set up: its address, the requester ID of its requests, and its memory BARs by number."""

    address: SourceId
    source: SourceId
    bars: Mapping[int, int]


class PciBuses:
    """The buses of a bare machine; `Function`s are set up one by one."""

    def __init__(self, machine: BareMachine, spec: MachineSpec) -> None:
        """Number the buses and open a window of memory to each."""
        self._qtest = machine.qtest
        self._explaining = machine.explaining
        self._next: dict[int, list[int]] = {}
        with self._explaining():
            self._qtest.port_write(_ADDRESS_PORT, 0x8000_0000 | _PCIEXBAR, 4)
            self._qtest.port_write(_DATA_PORT, _ECAM | 1, 4)
        for port in range(spec.root_ports):
            self._open(SourceId(FIRST_ROOT_PORT_SLOT + port << 3), port + 1, port + 1, port)
        for bridge in range(spec.pci_bridges):
            bus = _BRIDGE_BUS + 2 * bridge
            self._open(SourceId(FIRST_BRIDGE_SLOT + bridge << 3), bus, bus + 1, 32 + bridge)
            self._open(SourceId(bus << 8), bus + 1, bus + 1, 32 + bridge)

    def set_up(self, qdev: Mapping[str, object]) -> Function:
        """Give BARs to the function that was added as `qdev`, and let it master the bus."""
        bus = str(qdev["bus"])
        number = int(bus[2:])
        if bus.startswith("rp"):
            address = SourceId(number + 1 << 8)
            source = address
        else:
            secondary = _BRIDGE_BUS + 2 * number + 1
            address = SourceId(secondary << 8 | int(str(qdev["addr"]), 16) << 3)
            # A PCIe-to-PCI bridge takes the requests from behind it upon itself: its secondary bus, function 0.
            source = SourceId(secondary << 8)
        if self.read(address, 0, 2) == 0xFFFF:
            raise InfraError(f"there is no PCI function at {address} for '{qdev['id']}'")
        bars = dict(self._bars(address))
        self.write(address, _COMMAND, _MEMORY_AND_MASTER, 2)
        return Function(address, source, bars)

    def first_virtual_function(self, physical: Function) -> Function:
        """Enable one virtual function of `physical` (PCI Express spec, SR-IOV) and let it master the bus."""
        sriov = self.extended_capability(physical.address, _SRIOV)
        self.write(physical.address, sriov + 0x10, 1, 2)  # NumVFs
        self.write(physical.address, sriov + 0x08, 0b1001, 2)  # VF Enable, VF MSE
        address = SourceId(physical.address.value + self.read(physical.address, sriov + 0x14, 2))
        # Its vendor reads as ffff, as SR-IOV wants it; its class does not.
        if self.read(address, _CLASS, 4) == 0xFFFF_FFFF:
            raise InfraError(f"{physical.address} has no virtual function at {address}")
        self.write(address, _COMMAND, _MEMORY_AND_MASTER, 2)
        return Function(address, address, physical.bars)

    def read(self, function: SourceId, offset: int, size: int) -> int:
        """Read `size` bytes of the configuration space of `function`."""
        with self._explaining():
            return self._qtest.read(_ECAM + (function.value << 12) + offset, size)

    def write(self, function: SourceId, offset: int, value: int, size: int) -> None:
        """Write `size` bytes of the configuration space of `function`."""
        with self._explaining():
            self._qtest.write(_ECAM + (function.value << 12) + offset, value, size)

    def capability(self, function: SourceId, number: int) -> int:
        """Give the offset of a capability; InfraError if the function has none of that number."""
        offset = self.read(function, _CAPABILITIES, 1) & 0xFC
        while offset:
            if self.read(function, offset, 1) == number:
                return offset
            offset = self.read(function, offset + 1, 1) & 0xFC
        raise InfraError(f"the PCI function {function} has no capability {number:#x}")

    def extended_capability(self, function: SourceId, number: int) -> int:
        """Give the offset of an extended capability; InfraError if the function has none of that number."""
        offset = _EXTENDED
        while offset:
            header = self.read(function, offset, 4)
            if header & 0xFFFF == number:
                return offset
            offset = header >> 20
        raise InfraError(f"the PCI function {function} has no extended capability {number:#x}")

    def set_message(self, function: SourceId, address: int, data: int) -> None:
        """Program the MSI capability of `function` to send `data` to `address`, and enable it."""
        msi = self.capability(function, _MSI)
        self.write(function, msi + 4, address & 0xFFFF_FFFF, 4)
        self.write(function, msi + 8, address >> 32, 4)
        self.write(function, msi + 12, data & 0xFFFF, 2)
        self.write(function, msi + 2, self.read(function, msi + 2, 2) | 1, 2)

    def place(self, function: SourceId, size: int) -> int:
        """Give `size` bytes (a power of two) of the memory window that leads to `function`."""
        window = self._next[function.bus]
        start = -(-window[0] // size) * size
        if start + size > window[1]:
            raise InfraError(f"the memory window of bus {function.bus:#04x} is full")
        window[0] = start + size
        return start

    def _open(self, port: SourceId, secondary: int, subordinate: int, number: int) -> None:
        """Number the bus behind `port`, and let memory accesses through to it."""
        base = _WINDOWS + number * _WINDOW
        limit = base + _WINDOW - 1
        self.write(port, _BUSES, port.bus | secondary << 8 | subordinate << 16, 4)
        self.write(port, _WINDOW_REGISTER, base >> 16 | limit & 0xFFF0_0000, 4)
        self.write(port, _COMMAND, _MEMORY_AND_MASTER, 2)
        self._next[secondary] = [base, limit + 1]

    def _bars(self, function: SourceId) -> Iterator[tuple[int, int]]:
        """Size each memory BAR and give it a place."""
        number = 0
        while number < 6:
            register = _BAR0 + 4 * number
            self.write(function, register, 0xFFFF_FFFF, 4)
            answer = self.read(function, register, 4)
            wide = answer & 0b111 == 0b100
            if answer and not answer & 1:
                place = self.place(function, -(answer & ~0xF) & 0xFFFF_FFFF)
                self.write(function, register, place, 4)
                if wide:
                    self.write(function, register + 4, 0, 4)
                yield number, place
            number += 2 if wide else 1
