"""Configuration space of a device as the machine holds it, read from outside of the guest."""

from __future__ import annotations

from dataclasses import dataclass

from harness.errors import HarnessError
from harness.session import AttachedDevice, Session
from harness.vtd.source_id import SourceId

#: Where SeaBIOS places q35's enhanced configuration area (BUILD_PCIEXBAR in its src/config.h): a page per function.
_ECAM = 0xB000_0000

_STATUS, _CAPABILITIES, _MSI = 0x06, 0x34, 0x05
_HAS_CAPABILITIES = 1 << 4
_MSI_ENABLED, _MSI_64 = 1 << 0, 1 << 7


@dataclass(frozen=True, slots=True)
class InterruptMessage:
    """The write by which a device interrupts."""

    address: int
    data: int


def interrupt_message(session: Session, device: AttachedDevice) -> InterruptMessage:
    """Give what the device's MSI capability holds (PCI Local Bus 3.0, 6.8.1); HarnessError if it is not enabled."""
    if device.address is None:
        raise HarnessError(f"'{device.name}' is not plugged in")
    function = SourceId.parse(device.address)
    config = session.guest.machine.memory.read(_ECAM + (function.value << 12), 256)
    at = config[_CAPABILITIES] if config[_STATUS] & _HAS_CAPABILITIES else 0
    while at and config[at] != _MSI:
        at = config[at + 1]
    if not at:
        raise HarnessError(f"'{device.name}' ({device.address}) has no message-signalled interrupts")
    control = int.from_bytes(config[at + 2 : at + 4], "little")
    if not control & _MSI_ENABLED:
        raise HarnessError(f"the interrupt message of '{device.name}' is not enabled; put an 'msi' step before")
    wide = bool(control & _MSI_64)
    address = int.from_bytes(config[at + 4 : at + (12 if wide else 8)], "little")
    data = int.from_bytes(config[at + (12 if wide else 8) :][:2], "little")
    return InterruptMessage(address, data)
