"""From a planned machine to a session on it: QEMU started, buses numbered, devices set up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from harness.bare.edu import CopyChannel
from harness.bare.nic import E1000E, IGB, TransmitRing
from harness.bare.nvme import Features
from harness.bare.pci import PciBuses
from harness.bare.session import BareDevice, BareSession, Engine
from harness.errors import HarnessError
from harness.evidence import Journal, VariantDirectory
from harness.machine.bare import BareMachine
from harness.machine.parts import QemuBinary
from harness.machine.properties import QemuFacts
from harness.machine.spec import MachineSpec
from harness.vtd.registers import CAP, Capability

_QUEUES = {"e1000e": E1000E, "igb": IGB, "igb-vf": IGB}

#: The bit of CAP.SAGAW that offers tables of 4 levels.
_FOUR_LEVELS = 0b100


@dataclass(frozen=True, slots=True)
class BareRole:
    """A device of a bare machine: its name, its model, and the properties that QEMU adds it with."""

    name: str
    model: str
    qdev: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class BareWitnesses:
    """Brings QEMU's trace into the journal at the ends of a step; there is no guest whose log could be marked."""

    session: BareSession

    def begin(self, label: str) -> str:
        """Record what came before the step `label`."""
        self.session.trace()
        return label

    def end(self, label: str) -> str:
        """Record what was traced in the step `label`."""
        self.session.trace()
        return label


@contextmanager
def bare_session(
    spec: MachineSpec,
    roles: Sequence[BareRole],
    *,
    qemu: QemuBinary,
    facts: QemuFacts,
    directory: VariantDirectory,
    journal: Journal,
    unbroken: bool = False,
) -> Iterator[BareSession]:
    """Start the machine of `spec` with the devices `roles`, and stop it when the context ends."""
    devices = [role.qdev for role in roles]
    with BareMachine.start(spec, devices, qemu=qemu, facts=facts, directory=directory, journal=journal) as machine:
        four = Capability(machine.register(CAP, 8)).address_widths & _FOUR_LEVELS
        session = BareSession(
            machine,
            journal,
            PciBuses(machine, spec),
            translation=spec.translation,
            levels=4 if four else 3,
            unbroken=unbroken,
        )
        for role in roles:
            function = session.buses.set_up(role.qdev)
            if role.model == "igb-vf":
                function = session.buses.first_virtual_function(function)
            device = BareDevice(role.name, role.model, function, _engine(role, session))
            session.devices[role.name] = device
            journal.record(
                "runner",
                "device",
                name=role.name,
                address=device.function,
                source_id=str(device.source),
                facts={"model": role.model},
            )
        session.watch()
        yield session


def _engine(role: BareRole, session: BareSession) -> Engine:
    if role.model == "edu":
        return CopyChannel(session)
    if role.model == "nvme":
        return Features(session)
    if role.model in _QUEUES:
        wire = session.machine.wires[str(role.qdev["netdev"])]
        return TransmitRing(session, _QUEUES[role.model], wire)
    raise HarnessError(f"nothing drives '{role.name}' ({role.model}) on a bare machine")
