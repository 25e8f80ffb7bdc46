"""Configuration space of a device as the machine holds it, read from outside of the guest."""

from __future__ import annotations

from dataclasses import dataclass

from harness.errors import HarnessError
from harness.session import AttachedDevice, Session
from harness.vtd.source_id import SourceId

#: Where SeaBIOS places q35's enhanced configuration area (BUILD_PCIEXBAR in its src/config.h): a page per function.
_ECAM = 0xB000_0000

#: The extended capability of Address Translation Services, and the enable bit of its control register (PCI Express Base
#: Specification 5.0, 10.5.1).
_ATS, _ATS_CONTROL, _ATS_ENABLED = 0x000F, 0x06, 1 << 15

_STATUS, _BARS, _CAPABILITIES, _MSI, _EXPRESS, _MSIX = 0x06, 0x10, 0x34, 0x05, 0x10, 0x11
_HAS_CAPABILITIES = 1 << 4
_MSI_ENABLED, _MSI_64 = 1 << 0, 1 << 7

#: The MSI-X capability (PCI Local Bus 3.0, 6.8.2): its enable bit, the bits of the last vector's number, and those of
#: the BAR in the place of the table; then the bits of a BAR's type and of its address.
_MSIX_ENABLED, _MSIX_LAST, _MSIX_BAR = 1 << 15, 0x7FF, 0x7
_BAR_TYPE, _BAR_WIDE, _BAR_ADDRESS = 0x6, 0x4, ~0xF
#: An entry of the table: address (8 bytes), data (4), control (4), in which bit 0 masks the vector.
_VECTOR_BYTES = 16


@dataclass(frozen=True, slots=True)
class InterruptMessage:
    """The write by which a device interrupts."""

    address: int
    data: int


@dataclass(frozen=True, slots=True)
class Vector:
    """An entry of a device's MSI-X table: its number, its message, and whether it is masked."""

    number: int
    message: InterruptMessage
    masked: bool


def ats_enabled(session: Session, device: AttachedDevice) -> bool | None:
    """Tell whether ATS is enabled in the device's extended capability, None if it does not have that."""
    config = _config(session, device, 4096)
    at = 0x100
    while at:
        header = int.from_bytes(config[at : at + 4], "little")
        if header & 0xFFFF == _ATS:
            control = int.from_bytes(config[at + _ATS_CONTROL : at + _ATS_CONTROL + 2], "little")
            return bool(control & _ATS_ENABLED)
        at = header >> 20
    return None


def express_capability(session: Session, device: AttachedDevice) -> int:
    """Give where the device's PCI Express capability begins; HarnessError if it has none."""
    at = _capability(_config(session, device, 256), _EXPRESS)
    if not at:
        raise HarnessError(f"'{device.name}' ({device.address}) has no PCI Express capability")
    return at


def interrupt_message(session: Session, device: AttachedDevice) -> InterruptMessage:
    """Give what the device's MSI capability holds (PCI Local Bus 3.0, 6.8.1); HarnessError if it is not enabled."""
    config = _config(session, device, 256)
    at = _capability(config, _MSI)
    if not at:
        raise HarnessError(f"'{device.name}' ({device.address}) has no message-signalled interrupts")
    control = int.from_bytes(config[at + 2 : at + 4], "little")
    if not control & _MSI_ENABLED:
        raise HarnessError(f"the interrupt message of '{device.name}' is not enabled; put an 'msi' step before")
    wide = bool(control & _MSI_64)
    address = int.from_bytes(config[at + 4 : at + (12 if wide else 8)], "little")
    data = int.from_bytes(config[at + (12 if wide else 8) :][:2], "little")
    return InterruptMessage(address, data)


def vector_table(session: Session, device: AttachedDevice) -> tuple[Vector, ...]:
    """Give the device's own MSI-X table, read from its registers; HarnessError if MSI-X is not enabled."""
    config = _config(session, device, 256)
    at = _capability(config, _MSIX)
    control = int.from_bytes(config[at + 2 : at + 4], "little") if at else 0
    if not control & _MSIX_ENABLED:
        raise HarnessError(f"MSI-X of '{device.name}' ({device.address}) is not enabled: nobody takes its interrupts")
    place = int.from_bytes(config[at + 4 : at + 8], "little")
    bar = _BARS + 4 * (place & _MSIX_BAR)
    low = int.from_bytes(config[bar : bar + 4], "little")
    high = int.from_bytes(config[bar + 4 : bar + 8], "little") if low & _BAR_TYPE == _BAR_WIDE else 0
    begin = (high << 32 | low & _BAR_ADDRESS) + (place & ~_MSIX_BAR)
    table = session.guest.machine.memory.read(begin, ((control & _MSIX_LAST) + 1) * _VECTOR_BYTES)
    entries = [table[start : start + _VECTOR_BYTES] for start in range(0, len(table), _VECTOR_BYTES)]
    return tuple(
        Vector(
            number,
            InterruptMessage(int.from_bytes(entry[:8], "little"), int.from_bytes(entry[8:12], "little")),
            masked=bool(entry[12] & 1),
        )
        for number, entry in enumerate(entries)
    )


def _capability(config: bytes, wanted: int) -> int:
    """Give where a capability begins in configuration space, 0 if it is not there."""
    at = config[_CAPABILITIES] if config[_STATUS] & _HAS_CAPABILITIES else 0
    while at and config[at] != wanted:
        at = config[at + 1]
    return at


def _config(session: Session, device: AttachedDevice, size: int) -> bytes:
    if device.address is None:
        raise HarnessError(f"'{device.name}' is not plugged in")
    function = SourceId.parse(device.address)
    return session.guest.machine.memory.read(_ECAM + (function.value << 12), size)
