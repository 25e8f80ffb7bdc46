"""NICs that another host has handed out, for the length of a context; the far end (`lender`) outlives this one."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.answers import Named, read_message, require
from harness.errors import InfraError, SshError
from harness.evidence import Record
from harness.nested.sending import start_program
from harness.ssh import Channel, Ssh
from harness.waiting import Deadline

_LENDER = "the host's lender of NICs"

#: What it says, by the key that tells one from another.
_TOLD = {
    "lending": {"lending": {"address": str, "driver": (str, None), "group": (str, None), "id": str}},
    "lent": {"lent": int},
    "refused": {"refused": str, "hint": (str, None)},
    "returned": {"returned": Named((str, None)), "kept": Named([(str, None)])},
}

_PROGRAM = ("harness.lab.nic_there", "harness.lab.lender")

#: Seconds for the host to take a NIC from its driver, which closes its interface, or to give it back, which probes it.
_MOVED_S = 60.0


@dataclass(frozen=True, slots=True)
class Loan:
    """A NIC that vfio-pci has: the driver that it had (None for none) and will have again, its IOMMU group, its id."""

    address: str
    driver: str | None
    group: str
    id: str


@contextlib.contextmanager
def lent(ssh: Ssh, addresses: Sequence[str], journal: Record, *, root: str = "/") -> Iterator[Mapping[str, Loan]]:
    """Have the host hand out the NICs at `addresses` for the length of the context; gives them by address.

    Raises InfraError with the host's reason if one cannot be had, and at the end if one did not come back to the driver
    that it had; both say what to do. The journal has `lab`/`lent` and `lab`/`returned`.
    """
    if not addresses:
        yield {}
        return
    job = json.dumps({"nics": list(addresses), "root": root}).encode() + b"\n"
    channel = start_program(ssh, _PROGRAM, job)
    try:
        loans = _taken(channel)
        for loan in loans.values():
            journal.record("lab", "lent", address=loan.address, driver=loan.driver, group=loan.group, id=loan.id)
        try:
            yield loans
        finally:
            channel.send_eof()
            _given_back(channel, loans, journal)
    finally:
        channel.close()


def _taken(channel: Channel) -> Mapping[str, Loan]:
    loans: dict[str, Loan] = {}
    while True:
        told = _told(channel)
        if "refused" in told:
            raise InfraError(f"the lab host keeps its NIC: {told['refused']}", hint=told["hint"])
        if "lent" in told:
            return loans
        if "lending" not in told:
            raise InfraError(f"{_LENDER} gave back what it had not lent")
        nic = told["lending"]
        loans[nic["address"]] = Loan(nic["address"], nic["driver"], nic["group"], nic["id"])


def _given_back(channel: Channel, loans: Mapping[str, Loan], journal: Record) -> None:
    told = _told(channel)
    if "returned" not in told:
        raise InfraError(f"{_LENDER} does not tell what it gave back: {told}")
    for address, loan in loans.items():
        now = told["returned"].get(address)
        journal.record("lab", "returned", address=address, before=loan.driver, driver=now, kept=address in told["kept"])
        if address in told["kept"]:
            text, hint = (*told["kept"][address], None, None)[:2]
            raise InfraError(f"the lab host's NIC did not come back: {text}", hint=hint)
        if now != loan.driver:
            raise InfraError(f"the lab host's NIC {address} had {loan.driver}, and has {now} now")


def _told(channel: Channel) -> dict[str, Any]:
    line = channel.read_line(Deadline.after(_MOVED_S))
    if line is None:
        said = channel.stderr_text().strip()
        raise SshError(f"the host's lender of NICs ended: {said.splitlines()[-1] if said else 'without a word'}")
    told = read_message(line, _LENDER)
    for key, shape in _TOLD.items():
        if key in told:
            require(told, shape, _LENDER)
            return told
    raise InfraError(f"{_LENDER} says something else: {line[:200]}")
