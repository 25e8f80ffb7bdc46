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

_STATUS, _CAPABILITIES, _MSI, _EXPRESS = 0x06, 0x34, 0x05, 0x10
_HAS_CAPABILITIES = 1 << 4
_MSI_ENABLED, _MSI_64 = 1 << 0, 1 << 7


@dataclass(frozen=True, slots=True)
class InterruptMessage:
    """The write by which a device interrupts."""

    address: int
    data: int


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
