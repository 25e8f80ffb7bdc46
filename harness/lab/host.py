"""A lab host: what is known of it for a run, and the connection to it for one machine."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from harness.errors import InfraError
from harness.host.accelerator import choose_accelerator
from harness.host.resources import Amount
from harness.host.slots import GuestSlots, capacity
from harness.images.qemu_build import MovableQemu, inside
from harness.images.store import GuestImage
from harness.lab.kvm import probe_kvm_there
from harness.lab.shelf import Shelf
from harness.lab.survey import FarNic, Survey, take_survey
from harness.machine.spec import Accelerator
from harness.nested.platform import FarImage, FarQemu
from harness.ssh import Ssh, SshAddress, connected

#: Makes the connection, for the length of a context.
Connect = Callable[[], AbstractContextManager[Ssh]]

_ADDRESS = re.compile(r"(?:([0-9a-f]{4}):)?([0-9a-f]{2}:[0-1][0-9a-f]\.[0-7])")


@dataclass(frozen=True, slots=True, kw_only=True)
class LabFacts:
    """What a run knows of its lab host; it can go to another process.

    `name` is its address in words, `nics` are those that it may hand out, `accelerator` is `kvm` only where a vCPU was
    seen to run with it there, `slots` are the places for machines there.
    """

    name: str
    connect: Connect
    survey: Survey
    nics: tuple[FarNic, ...]
    qemu: FarQemu
    accelerator: Accelerator
    accelerator_reason: str
    slots: GuestSlots

    @contextlib.contextmanager
    def opened(self, progress: Callable[[str], None]) -> Iterator[LabHost]:
        """Connect to it for the length of the context."""
        with self.connect() as ssh:
            yield LabHost(self, ssh, progress)


@dataclass(frozen=True, slots=True)
class LabHost:
    """A lab host that is connected, as `harness.nested.machine.Place`."""

    facts: LabFacts
    ssh: Ssh
    progress: Callable[[str], None]

    @property
    def qemu(self) -> FarQemu:
        """Its QEMU, which was sent there."""
        return self.facts.qemu

    def image(self, image: GuestImage) -> FarImage:
        """Give `image` as it lies there, sent if need be."""
        shelf = Shelf(self.ssh, self.facts.survey.home, self.progress)
        files = [image.kernel.name, image.initrd.name]
        there = Path(shelf.place(image.name, image.digest, image.kernel.parent, files))
        return FarImage(image.name, image.digest, there / image.kernel.name, there / image.initrd.name)


def open_lab(
    address: SshAddress,
    nics: Sequence[str],
    *,
    qemu: MovableQemu,
    cache: Path,
    progress: Callable[[str], None],
) -> LabFacts:
    """Connect to a host, see that machines can run there, and have QEMU there; `nics` are addresses of its NICs.

    Raises SshError, or InfraError that says what the host lacks.
    """
    progress(f"{address}: connecting")
    connect = functools.partial(connected, address)
    return survey_lab(str(address), connect, nics, qemu=qemu, cache=cache, progress=progress)


def survey_lab(
    name: str,
    connect: Connect,
    nics: Sequence[str],
    *,
    qemu: MovableQemu,
    cache: Path,
    progress: Callable[[str], None],
) -> LabFacts:
    """The same for a host that `connect` reaches, called `name`."""
    with connect() as ssh:
        survey = take_survey(ssh)
        for need in survey.needs():
            if not need.ok:
                raise InfraError(f"{name}: {need.name}: {need.found}", hint=need.remedy)
        chosen = tuple(_nic(name, survey, nic) for nic in nics)
        shelf = Shelf(ssh, survey.home, progress)
        there = shelf.place("qemu", qemu.digest, qemu.root)
        argv, env = inside(qemu.recipe, str(there))
        far = FarQemu(argv, env, qemu.version, qemu.digest)
        accelerator, reason = choose_accelerator(lambda: probe_kvm_there(_Started(ssh, far), survey))
    bears = capacity(Amount(survey.cpus, "affinity"), Amount(survey.memory_mib, "available"))
    locks = cache / "locks" / f"lab-{re.sub('[^A-Za-z0-9.]+', '-', name)}"
    return LabFacts(
        name=name,
        connect=connect,
        survey=survey,
        nics=chosen,
        qemu=far,
        accelerator=accelerator,
        accelerator_reason=f"{name}: {reason}",
        slots=GuestSlots(locks, bears.guests, f"{name}: {bears.reason}"),
    )


def nic_address(text: str) -> str:
    """Read the PCI address of a NIC, `03:00.0` or `0000:03:00.0`; ValueError for anything else."""
    match = _ADDRESS.fullmatch(text.lower())
    if match is None:
        raise ValueError(f"'{text}' is not the PCI address of a NIC: write it as lspci does, 0000:03:00.0")
    return f"{match[1] or '0000'}:{match[2]}"


def _nic(name: str, survey: Survey, address: str) -> FarNic:
    nic = survey.nic(address)
    if nic is None:
        known = ", ".join(each.address for each in survey.nics) or "none"
        raise InfraError(f"{name} has no NIC at {address}", hint=f"it has: {known}")
    if nic.obstacle is not None:
        raise InfraError(f"{name} cannot hand out its NIC: {nic.obstacle[0]}", hint=nic.obstacle[1])
    for need in survey.nic_needs():
        if not need.ok and not need.name.startswith("nic "):
            raise InfraError(f"{name} cannot hand out a NIC: {need.name}: {need.found}", hint=need.remedy)
    return nic


@dataclass(frozen=True, slots=True)
class _Started:
    """Where a QEMU can be run already; as `harness.nested.machine.Place`."""

    ssh: Ssh
    qemu: FarQemu
