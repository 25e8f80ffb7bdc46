"""From a scenario to what will be done: machine, devices and steps, decided before anything runs.

A plan is data: `harness plan` shows it, the runner follows it, and the judge reads it back from the run directory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count, groupby
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

import harness.catalog  # noqa: F401  # registers every step and device
from harness.equipment import HostFacts
from harness.errors import HarnessError
from harness.feasibility import infeasible
from harness.lab.host import LabFacts
from harness.machine import migration
from harness.machine.argv import MAX_ROOT_PORTS
from harness.machine.spec import PLATFORM_DISK, IommuSpec, MachineSpec
from harness.nested.nic import GivenNic
from harness.own_values import memory_of
from harness.scenario.load import Variant, load_all
from harness.scenario.model import MachineSection, Scenario
from harness.scenario.same_plan import same_plans
from harness.scenario.step import Step
from harness.scenario.told_once import told_once
from harness.scenario.unused import unused
from harness.skipping import reasons_to_skip
from harness.source.diagnostics import Diagnostic, InputError

#: Raised whenever the judge needs something that the runner did not record before.
EVIDENCE = 3

#: How a machine comes up: booted, or restored from a template.
Start = Literal["template", "cold"]

#: Root ports every machine has, so that most scenarios share one machine; more if a scenario has more devices.
ROOT_PORTS = 4

#: Processors of a guest that runs guests of its own: one for them and one for their QEMUs.
PLATFORM_VCPUS = 2

#: Each character on a nested guest's serial console is several exits to the platform, each of which is emulated: with
#: every line on it, the boot takes twice as long. A machine on a lab host may be nested as well. Its log is read whole,
#: and what is worse than a notice is on both.
NESTED_KERNEL_ARGS = ("loglevel=5",)

#: Memory of a bare machine: tables, targets and the devices' rings.
BARE_MEMORY_MIB = 64

#: The conventional bus that devices `behind: bridge` share.
BRIDGE = "br0"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedStep:
    """One step: its place in the scenario file, what is done, and what is expected of it (empty if nothing)."""

    index: int
    keyword: str
    line: int
    text: str
    expect_text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedDevice:
    """One device under test; `qdev` is what QEMU is given, `behind_bridge` whether it shares a conventional bus.

    A virtual function has no `qdev`, but the name of its `physical` function, which the guest makes it of. `mac` is a
    NIC's address, `host_address` that of a NIC of the lab host, there.
    """

    name: str
    model: str
    slot: int
    qdev: Mapping[str, Any]
    wire: str | None
    plugged: bool
    behind_bridge: bool
    physical: str | None = None
    mac: str | None = None
    host_address: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedGuest:
    """One guest nested in the machine's own, which the steps start; `machine` is what runs it there."""

    name: str
    machine: MachineSpec
    nics: tuple[GivenNic, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One variant, ready to run.

    `source` and `line` are where it comes from, `definition` the variant's plain data as its author wrote it, `skip`
    why it cannot run here, `refused` the words with which QEMU must refuse the machine, `protection_removed` what a
    counter-proof took away, `start` whether the machine is booted (`cold`) or restored (`template`), `prove` whether
    the counter-proofs are run, `lab` the lab host that the machine runs on, `evidence` the version of what is recorded.
    """

    scenario: str
    variant: str
    title: str
    tags: tuple[str, ...]
    source: str
    line: int
    machine: MachineSpec
    devices: tuple[PlannedDevice, ...]
    guests: tuple[PlannedGuest, ...] = ()
    steps: tuple[PlannedStep, ...]
    counter_proofs: tuple[str, ...]
    definition: Mapping[str, Any] = field(repr=False)
    text: str = field(repr=False)
    skip: str | None = None
    refused: str | None = None
    protection_removed: str | None = None
    start: Start = "template"
    prove: bool = False
    lab: str | None = None
    evidence: int = EVIDENCE

    @property
    def id(self) -> str:
        """What a user selects it by: `scenario` or `scenario[variant]`."""
        return f"{self.scenario}[{self.variant}]" if self.variant else self.scenario

    @property
    def node(self) -> str:
        """The pytest node id."""
        return f"{self.source}::{self.id}"

    def without(self, protection: str) -> Plan:
        """Give the same plan with one protection taken away: on a machine where nothing translates for devices.

        `unbroken` takes away what a scenario breaks itself: the same machine, its tables left as they were. So they are
        with `intremap_off`, which takes the remapping of interrupts away and nothing else.
        """
        return replace(self, machine=_unprotected(self.machine, protection), protection_removed=protection)


def plan_all(
    paths: Sequence[Path], host: HostFacts, *, cold: bool = False, remark: Callable[[Diagnostic], None] | None = None
) -> list[Plan]:
    """Plan every variant of the files at `paths`, to boot each machine if `cold`.

    `remark` is given what is right and may still not be meant. Raises InputError with everything that is wrong in any
    of them.
    """
    plans: list[Plan] = []
    problems: list[Diagnostic] = []
    for _, group in groupby(load_all(paths), key=lambda variant: variant.document.file):
        variants = list(group)
        found = {variant.name: list(infeasible(variant, host.facts)) for variant in variants}
        problems += told_once(found, variants[0].matrix)
        planned = [(variant, plan_variant(variant, host, cold=cold)) for variant in variants if not found[variant.name]]
        problems += same_plans((variant, _doing(variant, plan)) for variant, plan in planned)
        plans += [plan for _, plan in planned]
        if remark is not None:
            for diagnostic in unused(variants):
                remark(diagnostic)
    if problems:
        raise InputError(problems)
    return plans


def _doing(variant: Variant, plan: Plan) -> tuple[object, ...]:
    """Everything in a plan that another variant could do otherwise, on this host or on one with another QEMU."""
    scenario = variant.scenario
    units = [
        {
            key: {True: "on", False: "off"}[value] if isinstance(value, bool) else value
            for key, value in iommu.options.items()
        }
        for iommu in plan.machine.iommus
    ]
    return (
        replace(plan.machine, iommus=()),
        units,
        plan.devices,
        plan.guests,
        [step.model_copy(update={"note": None}) for step in scenario.steps],
        (scenario.start, scenario.requires, scenario.counter_proof, scenario.refused),
    )


def plan_variant(variant: Variant, host: HostFacts, *, cold: bool = False) -> Plan:
    """Plan one variant that has been checked; `cold` boots its machine whatever its scenario says."""
    scenario = variant.scenario
    devices = tuple(_planned_devices(scenario, host.lab))
    definition = {key: value for key, value in variant.document.data().items() if key != "matrix"}
    return Plan(
        scenario=scenario.scenario,
        variant=variant.name,
        title=scenario.title,
        tags=scenario.tags,
        source=variant.document.file,
        line=variant.place.line,
        machine=_machine(scenario, devices, host),
        devices=devices,
        guests=tuple(_planned_guests(scenario)),
        steps=tuple(_planned_step(index, step, variant, definition) for index, step in enumerate(scenario.steps)),
        counter_proofs=scenario.counter_proof,
        definition=definition,
        text=variant.document.text,
        start=_start(scenario, host, cold=cold),
        skip=next(reasons_to_skip(scenario, _drivers(devices), host), None),
        refused=scenario.refused.words if scenario.refused else None,
        lab=host.lab.name if host.lab else None,
    )


def read_plan(path: Path) -> Plan:
    """Read a plan back from its file; HarnessError if it is none, or was recorded for another judge than this."""
    try:
        plan = TypeAdapter(Plan).validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise HarnessError(f"no plan can be read from {path}: {error}") from None
    if plan.evidence != EVIDENCE:
        raise HarnessError(
            f"{path} was recorded as evidence of version {plan.evidence}; this judge reads version {EVIDENCE}",
            hint="judge it with the version of the harness that recorded it",
        )
    return plan


def _start(scenario: Scenario, host: HostFacts, *, cold: bool) -> Start:
    boots = any(
        (
            cold,
            host.lab,
            scenario.machine.kind == "bare",
            scenario.refused,
            scenario.machine.dmar_override,
            not migration.saves(host.qemu.version),
            # A restored machine has no kernel that it could boot again (machine.stub).
            any(step.reboots for step in scenario.steps),
        )
    )
    return "cold" if boots else scenario.start


def _planned_step(index: int, step: Step, variant: Variant, definition: Mapping[str, Any]) -> PlannedStep:
    expect = definition["steps"][index].get("expect", "") if step.states_something else ""
    return PlannedStep(
        index=index,
        keyword=step.keyword,
        line=variant.span(("steps", index)).line,
        text=step.summary(),
        expect_text=_in_words(expect),
    )


def _in_words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_in_words(item)}".strip() for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return " or ".join(_in_words(item) for item in value)
    return "" if value is None else str(value)


def _planned_devices(scenario: Scenario, lab: LabFacts | None) -> Iterable[PlannedDevice]:
    handed = iter(lab.nics if lab else ())
    ports = 0
    behind_bridge = 0
    for slot, (name, device) in enumerate(scenario.devices.items()):
        wire = f"wire-{device.physical or name}" if device.wired else None
        mac = f"52:54:00:76:74:{slot + 1:02x}" if wire else None
        qdev: dict[str, Any] = {} if device.physical else {**device.qdev(), "id": name}
        address = None
        if device.from_host:
            nic = next(handed, None)  # where there is none left, the scenario is skipped
            address = nic.address if nic else None
            qdev["host"] = address
        if qdev and wire:
            qdev |= {"netdev": wire, "mac": mac}
        if not qdev:
            pass
        elif device.behind == "bridge":
            behind_bridge += 1
            qdev |= {"bus": BRIDGE, "addr": f"{behind_bridge:#x}"}
        else:
            qdev["bus"] = f"rp{ports}"
            ports += 1
        yield PlannedDevice(
            name=name,
            model=device.model_word,
            slot=slot,
            qdev=qdev,
            wire=wire,
            plugged=device.plugged,
            behind_bridge=device.behind == "bridge",
            physical=device.physical,
            mac=mac,
            host_address=address,
        )


def _drivers(devices: Sequence[PlannedDevice]) -> list[str]:
    """Give what QEMU calls the devices that it is given."""
    return [str(device.qdev["driver"]) for device in devices if device.qdev]


def _machine(scenario: Scenario, devices: Sequence[PlannedDevice], host: HostFacts) -> MachineSpec:
    machine = scenario.machine
    if machine.kind == "bare":
        return _bare_machine(machine, devices)
    given = machine.model_fields_set
    platform = bool(scenario.guests)
    return MachineSpec(
        image=machine.image,
        kernel_args=(*machine.kernel_args, *(NESTED_KERNEL_ARGS if host.lab else ())),
        memory_mib=memory_of(scenario) >> 20,
        vcpus=machine.vcpus if "vcpus" in given or not platform else PLATFORM_VCPUS,
        cpu=machine.cpu or "max",
        # Only KVM can tell a wrong in-kernel interrupt controller, and KVM that opens is enough for that.
        accelerator="kvm" if scenario.requires.kvm else host.accelerator,
        irqchip=machine.irqchip,
        iommus=tuple(IommuSpec(options, as_written=scenario.refused is not None) for options in machine.iommu),
        root_ports=max(ROOT_PORTS, sum(not (device.behind_bridge or device.physical) for device in devices)),
        multifunction_ports=machine.root_ports.multifunction == "on",
        acs=machine.root_ports.acs == "on",
        pci_bridges=int(any(device.behind_bridge for device in devices)),
        wires=tuple(device.wire for device in devices if device.wire and not device.physical),
        dmar_override=machine.dmar_override,
        disks=(PLATFORM_DISK,) if platform else (),
    )


def _planned_guests(scenario: Scenario) -> Iterable[PlannedGuest]:
    """Each has a root port for every device that it could be handed, and no remapping unit of its own.

    No two NICs have the same address, whosever they are: they may share a bridge.
    """
    addresses = count(1)
    for name, guest in scenario.guests.items():
        spec = MachineSpec(
            image=guest.image,
            kernel_args=(*NESTED_KERNEL_ARGS, *guest.kernel_args),
            memory_mib=guest.memory >> 20,
            cpu="host",
            accelerator="kvm",
            iommus=(),
            root_ports=min(MAX_ROOT_PORTS, max(1, len(scenario.devices) + len(guest.nics))),
            wires=tuple(guest.nics),
        )
        nics = tuple(
            GivenNic(name=nic, model=given.model, via=given.via, mac=f"52:54:00:76:75:{next(addresses):02x}")
            for nic, given in guest.nics.items()
        )
        yield PlannedGuest(name=name, machine=spec, nics=nics)


def _bare_machine(machine: MachineSection, devices: Sequence[PlannedDevice]) -> MachineSpec:
    """Give a machine that runs no guest: TCG, whose idle clock jumps to the next timer, and root ports as needed."""
    return MachineSpec(
        kind="bare",
        translation=machine.translation,
        image="",
        memory_mib=BARE_MEMORY_MIB,
        accelerator="tcg",
        irqchip=machine.irqchip,
        iommus=tuple(IommuSpec(options) for options in machine.iommu),
        root_ports=sum(not device.behind_bridge for device in devices),
        pci_bridges=int(any(device.behind_bridge for device in devices)),
        wires=tuple(device.wire for device in devices if device.wire),
    )


def _unprotected(machine: MachineSpec, protection: str) -> MachineSpec:
    others = tuple(arg for arg in machine.kernel_args if not arg.startswith(("intel_iommu=", "iommu=")))
    match protection:
        case "iommu_off":
            return replace(machine, kernel_args=(*others, "intel_iommu=off"))
        case "passthrough":
            return replace(machine, kernel_args=(*others, "intel_iommu=on", "iommu=pt"))
        case "no_viommu":
            return replace(machine, kernel_args=others, iommus=())
        case "intremap_off":
            unsafe = "vfio_iommu_type1.allow_unsafe_interrupts=1"
            return replace(machine, kernel_args=(*machine.kernel_args, "intremap=off", unsafe))
        case "unbroken":
            return machine
    raise ValueError(f"'{protection}' is not a protection that can be taken away")
