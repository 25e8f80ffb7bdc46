"""What a host says of itself that a machine there needs, and each lack with the deed that mends it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from harness.answers import read_message, require
from harness.errors import AgentError, InfraError, SshError
from harness.host.doctor import Need
from harness.nested.sending import start_program
from harness.ssh import Ssh
from harness.waiting import Deadline

_PROGRAM = ("harness.lab.nic_there", "harness.lab.surveyor")

#: Seconds for the host to answer; a host of a few hundred devices takes less than one.
_ANSWER_S = 30.0

_TOLD = {
    **dict.fromkeys(("uid", "cpus", "memory_mib", "groups"), int),
    **dict.fromkeys(("home", "kernel", "machine", "python", "kvm", "boot_id"), str),
    **dict.fromkeys(("vfio", "log_readable"), bool),
    "tar": (str, None),
    "iommus": [str],
    "nics": [
        {
            "address": str,
            "id": str,
            **dict.fromkeys(("driver", "group"), (str, None)),
            "interfaces": [str],
            "obstacle": ([(str, None)], None),
            "left_behind": bool,
        }
    ],
}

_OLDEST_PYTHON = (3, 9)


@dataclass(frozen=True, slots=True, kw_only=True)
class FarNic:
    """A NIC of the host; `id` is `vendor:device`, `obstacle` what keeps it from being handed out and what to do."""

    address: str
    id: str
    driver: str | None
    group: str | None
    interfaces: tuple[str, ...]
    obstacle: tuple[str, str] | None
    left_behind: bool

    @property
    def name(self) -> str:
        """It in a few words."""
        known = f", {', '.join(self.interfaces)}" if self.interfaces else ""
        return f"{self.id}, {self.driver or 'no driver'}{known}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """The host as it is now: `kvm` says what is wrong with /dev/kvm, empty if it opens, `boot_id` which boot it is."""

    uid: int
    home: str
    kernel: str
    machine: str
    python: str
    cpus: int
    memory_mib: int
    tar: str | None
    kvm: str
    boot_id: str
    iommus: tuple[str, ...]
    groups: int
    vfio: bool
    log_readable: bool
    nics: tuple[FarNic, ...]

    @classmethod
    def of(cls, told: dict[str, Any]) -> Survey:
        """Read what the surveyor told."""
        nics = tuple(
            FarNic(
                **{
                    **nic,
                    "interfaces": tuple(nic["interfaces"]),
                    "obstacle": None if nic["obstacle"] is None else (nic["obstacle"][0], nic["obstacle"][1]),
                }
            )
            for nic in told["nics"]
        )
        return cls(**{**told, "iommus": tuple(told["iommus"]), "nics": nics})

    def nic(self, address: str) -> FarNic | None:
        """Give the NIC at `address`, None if there is none."""
        return next((nic for nic in self.nics if nic.address == address), None)

    def needs(self) -> Iterator[Need]:
        """Tell what is needed for any machine there; what only a handed NIC needs is told by `nic_needs`."""
        yield Need("architecture", self.machine == "x86_64", self.machine, "take an x86-64 host")
        old = tuple(map(int, re.findall(r"[0-9]{1,4}", self.python)[:2])) < _OLDEST_PYTHON
        yield Need("python there", not old, self.python, "apt-get install python3 (3.9 or newer)")
        yield Need("tar there", self.tar is not None, self.tar or "not there", "apt-get install tar")

    def nic_needs(self) -> Iterator[Need]:
        """Tell what is needed to hand a NIC of the host to a machine there."""
        units = f"{', '.join(self.iommus)}, {self.groups} groups" if self.iommus else "no remapping unit in use"
        remedy = "switch VT-d on in the firmware and boot the host with intel_iommu=on"
        yield Need("IOMMU there", bool(self.iommus and self.groups), units, remedy)
        vfio = "there" if self.vfio else "not there"
        yield Need("vfio-pci there", self.vfio, vfio, "install the kernel's modules (vfio-pci)")
        yield Need("root there", self.uid == 0, f"user {self.uid}", "log in as root: ssh://root@...")
        log = "can be read and marked" if self.log_readable else "cannot be read and marked"
        yield Need("kernel log there", self.log_readable, log, "log in as root: ssh://root@...")
        for nic in self.nics:
            if nic.obstacle is None:
                note = "; a run has it, or left it behind: the next one gives it back" if nic.left_behind else ""
                yield Need(f"nic {nic.address}", ok=True, found=f"{nic.name}, group {nic.group}{note}")
            else:
                yield Need(
                    f"nic {nic.address}", ok=False, found=f"{nic.name}; {nic.obstacle[0]}", remedy=nic.obstacle[1]
                )


def take_survey(ssh: Ssh, *, root: str = "/") -> Survey:
    """Ask the host at the other end of `ssh`; SshError in its own words if its Python does not answer."""
    channel = start_program(ssh, _PROGRAM, arguments=[root])
    try:
        line = channel.read_line(Deadline.after(_ANSWER_S))
        said = channel.stderr_text().strip()
    finally:
        channel.close()
    if line is None:
        last = said.splitlines()[-1] if said else "not a word"
        raise SshError(f"the host does not tell what it has: {last}", hint="it needs python3, 3.9 or newer")
    try:
        told = read_message(line, "the host")
        require(told, _TOLD, "the host")
        return Survey.of(told)
    except (AgentError, ValueError, KeyError, TypeError, IndexError) as error:
        raise InfraError(f"the host told something else than what it has: {line[:200]} ({error})") from error
