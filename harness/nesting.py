"""Nested guests during a scenario: started, handed devices, told to do something with them, and ended."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from harness.address_book import PAGE, Buffer
from harness.errors import HarnessError, InfraError
from harness.machine.outside import walk_tables
from harness.session import AttachedDevice, Session
from harness.vtd.faults import Access
from harness.vtd.walk import Request, Walk

#: How often a nested guest is asked for a page until one lies where no nested guest has an address, and the bytes that
#: are held in between: its memory is made of the platform's large pages.
_TRIES, _LARGE_PAGE = 32, 2 << 20

#: Seconds for an agent in a nested guest, which runs many times slower than the guest it is in.
_NESTED_S = 60.0


def start_guest(session: Session, name: str) -> None:
    """Start the nested guest `name`; it answers when this returns."""
    if session.hosting is None:
        raise HarnessError(f"there is no guest '{name}' in this scenario")
    session.nested[name] = session.hosting(name)


def bridge(session: Session, device: AttachedDevice, name: str) -> None:
    """Make the bridge `name`, with the NIC `device` under its kernel driver as a port, if it is not there yet."""
    answer = session.call("bind", bdf=device.address, driver=device.kernel_driver, within_s=30.0)
    commands = (
        f"ip link show {name} 2>/dev/null || ip link add {name} type bridge",
        f"echo 1 >/proc/sys/net/ipv6/conf/{name}/disable_ipv6",
        f"ip link set {answer['netdev']} master {name} up && ip link set {name} up",
    )
    done = session.guest.run(["sh", "-ec", "; ".join(commands)])
    if done.status:
        raise InfraError(f"no bridge for '{device.name}': {done.stderr.decode(errors='replace').strip()}")


def hand_over(session: Session, device: AttachedDevice, guest: str) -> dict[str, Any]:
    """Assign `device` to a nested guest, whose own driver then drives it; gives what that guest sees of it."""
    session.call("bind", bdf=device.address, driver="vfio-pci", within_s=30.0)
    facts = session.nested[guest].hand(device.name, str(device.address))
    session.update(device, guest=guest)
    return facts


def withdraw(session: Session, device: AttachedDevice) -> None:
    """Unplug `device` from the machine while a nested guest has it, and see it gone from both.

    VFIO relays the platform's wish to the guest's QEMU (vfio_pci_core_request in Linux' vfio_pci_core.c), which unplugs
    it from the guest (vfio_req_notifier_handler in QEMU's hw/vfio/pci.c).
    """
    if device.guest is None:
        raise HarnessError(f"'{device.name}' was handed to no guest")
    nested = session.nested[device.guest]
    session.unplug(device)
    nested.call("pci_gone", bdf=nested.devices.pop(device.name), timeout_s=_NESTED_S, within_s=_NESTED_S + 5)
    session.update(session.device(device.name), guest=None, domain=None)


def end_guest(session: Session, name: str, *, kill: bool = False) -> None:
    """End a nested guest, or `kill` its QEMU; its devices stay with vfio-pci, for the next one."""
    nested = session.nested.pop(name)
    if kill:
        nested.kill()
    else:
        nested.stop()
    session.book.unmapped(name)
    for device in list(session.devices.values()):
        if device.guest == name:
            session.update(device, guest=None, domain=None)


def acting(session: Session, device: AttachedDevice) -> tuple[Session, AttachedDevice]:
    """Give the session in which `device` is told what to do, and the device as it is there.

    That is the nested guest which has it, with the device's address there, or else `session`.
    """
    if device.guest is None:
        return session, device
    nested = session.nested[device.guest]
    inner = Session(
        nested.guest,
        session.journal,
        session.wires,
        raw=True,
        unbroken=session.unbroken,
        book=session.book,
        allowance=session.allowance,
        listening=session.listening,
    )
    return inner, replace(device, address=nested.devices[device.name])


def seize(session: Session, device: AttachedDevice) -> None:
    """Have user space of the nested guest that has `device` take it from its driver, for its engine."""
    if device.guest is None:
        raise HarnessError(f"'{device.name}' was handed to no guest")
    inner, mine = acting(session, device)
    inner.call("bind", bdf=mine.address, driver=None, within_s=_NESTED_S)
    inner.call("buffer_create", name=device.staging, size=PAGE, within_s=_NESTED_S)
    _open(inner, mine)
    session.update(device, domain=device.guest)


def reopen(session: Session, device: AttachedDevice) -> None:
    """Close `device` and open it anew for its engine, after a reset, where it is open now."""
    inner, mine = acting(session, device)
    inner.call("device_close", device=device.name, within_s=_NESTED_S)
    _open(inner, mine)


def _open(inner: Session, device: AttachedDevice) -> None:
    """Open `device` for its engine in the session in which it is told what to do.

    `raw`, not by VFIO, where no remapping unit is: in a nested guest that of the platform stands behind the device.
    """
    inner.call(
        "device_open",
        device=device.name,
        bdf=device.address,
        model=device.model,
        via="raw" if inner.raw else "vfio",
        mailbox={"buffer": device.staging, "iova": None if inner.raw else device.staging_iova},
        within_s=_NESTED_S,
    )


def translate(session: Session, device: AttachedDevice, address: int, access: Access = Access.READ) -> Walk:
    """Walk the unit's tables, from outside, for a request of `device`."""
    if device.source is None:
        raise HarnessError(f"'{device.name}' is not plugged in, so nothing translates for it")
    return walk_tables(session.guest.machine, Request(device.source, address, access))


def plant(session: Session, guest: str, name: str, fill: bytes, *, beyond: int = 0) -> tuple[Buffer, int]:
    """Make a page in a nested guest, filled by repeating `fill`, that does not lie below `beyond` in the platform.

    Gives it as it lies in the platform's memory, and its address in the nested guest. Where it lies is what the
    platform's kernel tells the guest's QEMU; InfraError if other bytes stand there.
    """
    nested = session.nested[guest]
    for number in range(_TRIES):
        label = f"{name}-{number}" if number else name
        answer = nested.call("buffer_create", name=label, size=PAGE, fill=fill.hex(), within_s=_NESTED_S)
        inside = int(answer["pages"][0])
        physical = nested.host_physical(inside)
        if physical >= beyond:
            break
        # The pages that come next lie beside this one: they are held, as many as one large page has.
        nested.call("buffer_create", name=f"{label}-spacer", size=_LARGE_PAGE, within_s=_NESTED_S)
    else:
        raise InfraError(f"guest '{guest}' has no page above {beyond:#x} of the platform's memory")
    expected = (fill * (PAGE // len(fill) + 1))[:PAGE]
    if session.read_physical(physical, PAGE, label=f"{name} as filled") != expected:
        raise InfraError(f"other bytes than guest '{guest}' wrote stand at {physical:#x}")
    buffer = Buffer(name, PAGE, (physical,))
    session.book.add(buffer)
    session.book.mapped(guest, name, inside, PAGE, private=True)
    session.journal.record(
        "runner", "buffer", name=name, size=PAGE, pages=[physical], guest=guest, guest_pages=[inside]
    )
    return buffer, inside
