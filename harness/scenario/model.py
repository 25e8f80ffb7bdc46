"""A scenario as its author writes it: the machine, the devices under test, the steps, and how it may be varied.

Whether QEMU knows an option of the vIOMMU is not decided here but by QEMU's introspection, with the same spans.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator

from harness.machine.acpi_override import Malformation
from harness.machine.spec import MachineKind, Translation
from harness.scenario.device import AnyDevice, Device
from harness.scenario.section import Section, Shorthand, complaint
from harness.scenario.step import AnyStep
from harness.scenario.values import Name, OnOff, Size, Slug
from harness.source.nodes import NodePath

Image = Literal["debian-12", "debian-13", "debian-13-backports"]
Protection = Literal["iommu_off", "passthrough", "no_viommu", "unbroken", "intremap_off"]

_OPTION = re.compile(r"[a-z][a-z0-9_]*")
_VERSION = re.compile(r"(?:>=|<=|==|>|<) ?[0-9]+(?:\.[0-9]+){0,2}")


def _check_option(name: str) -> str:
    if not _OPTION.fullmatch(name):
        meant = name.lower().replace("-", "_").removeprefix("x_")
        hint = f"did you mean '{meant}'?" if _OPTION.fullmatch(meant) else None
        raise complaint("{written} is not an option of the vIOMMU", value=name, suggestion=hint)
    return name


def _check_kernel_arg(value: Any) -> Any:
    if isinstance(value, str) and (not value or not value.isprintable() or " " in value):
        raise complaint(
            "{written} is not one kernel argument", value=value, suggestion="make each a list item of its own"
        )
    return value


def _check_memory(value: int) -> int:
    if not 256 << 20 <= value <= 16 << 30 or value % (1 << 20):
        raise complaint("a guest gets 256MiB to 16GiB, in whole MiB; found {written}", value=value)
    return value


def _check_version(value: Any) -> Any:
    if not isinstance(value, str) or not _VERSION.fullmatch(value):
        raise complaint("{written} is not a version bound", value=value, suggestion='write e.g. ">=10.0"')
    return value


def _list_iommus(value: Any) -> Any:
    if value in ("off", False):
        return ()
    if isinstance(value, str | bool | int) or value is None:
        raise complaint("{written} is not a vIOMMU", value=value, suggestion="write off, {} or {intremap: on, ...}")
    return (value,) if isinstance(value, dict) else value


OptionName = Annotated[str, BeforeValidator(_check_option)]
KernelArgument = Annotated[str, BeforeValidator(_check_kernel_arg)]
IommuOptions = dict[OptionName, str | int | bool]

_IOMMU_SCHEMA: dict[str, Any] = {
    "type": "object",
    "propertyNames": {"pattern": f"^{_OPTION.pattern}$"},
    "additionalProperties": {"type": ["string", "integer", "boolean"]},
}


#: What only a machine with Linux has: a bare one runs nothing, on one processor that halts.
_LINUX_ONLY = ("image", "memory", "vcpus", "cpu", "irqchip", "root_ports", "kernel_args", "dmar_override")


class RootPorts(Section):
    """How the root ports keep apart what is behind them."""

    multifunction: OnOff = Field(
        default="off", description="Whether they are functions of one PCI device, instead of a device each."
    )
    acs: OnOff = Field(
        default="on",
        description="Whether they have Access Control Services, which send peers' DMA up to the remapping unit.",
    )


class MachineSection(Section):
    """The machine that QEMU makes: q35 with the devices under test behind ports of its own."""

    kind: MachineKind = Field(
        default="linux",
        description="linux: a guest from an image; bare: no guest at all, the harness lays the tables and drives the "
        "devices itself.",
    )
    translation: Translation = Field(
        default="legacy",
        description="The tables of a bare machine: legacy (second-stage tables from context entries), or, in scalable "
        "mode, second-stage or first-stage. The options of `iommu` must offer it.",
    )
    image: Image = Field(default="debian-13", description="Kernel 6.1, 6.12 or, backported, 7.3.")
    memory: Annotated[Size, AfterValidator(_check_memory)] = Field(default=512 << 20, description="Guest memory.")
    vcpus: Annotated[int, Field(ge=1, le=64)] = Field(default=1, description="Virtual CPUs.")
    cpu: str | None = Field(default=None, description="QEMU's CPU model; the harness chooses if it is not given.")
    irqchip: Literal["split", "off", "on"] = Field(
        default="split", description="QEMU's kernel-irqchip; interrupt remapping needs split or off."
    )
    iommu: Annotated[
        tuple[IommuOptions, ...],
        BeforeValidator(_list_iommus),
        WithJsonSchema(
            {
                "anyOf": [
                    {"enum": ["off", False]},
                    _IOMMU_SCHEMA,
                    {"type": "array", "items": _IOMMU_SCHEMA, "minItems": 1},
                ]
            }
        ),
    ] = Field(
        default=({"intremap": "on", "caching_mode": "on"},),
        description="Options of intel-iommu in snake_case, 'off' for none, or a list of two for a refusal.",
    )
    root_ports: RootPorts = Field(
        default=RootPorts(),
        description="`{multifunction: on}` makes root ports functions of one PCI device instead of a device each, "
        "`{acs: off}` takes Access Control Services from them.",
    )
    kernel_args: tuple[KernelArgument, ...] = Field(
        default=("intel_iommu=on",),
        description="Arguments of the guest's kernel besides the harness' own; [] leaves it to the kernel's defaults.",
    )
    dmar_override: Malformation | None = Field(
        default=None,
        description="What is wrong with the DMAR table that the guest is booted with instead of QEMU's.",
    )

    @model_validator(mode="after")
    def _check_kind(self) -> Self:
        given = self.model_fields_set
        if self.kind == "linux" and "translation" in given:
            hint = "add kind: bare; what Linux lays is chosen by 'iommu' and 'kernel_args'"
            raise complaint(
                "the guest's kernel lays its tables itself", at=("translation",), on_key=True, suggestion=hint
            )
        if self.kind == "bare":
            for key in _LINUX_ONLY:
                if key in given:
                    raise complaint(
                        "{written} makes no sense on a bare machine: it runs no guest", at=(key,), on_key=True
                    )
            if len(self.iommu) != 1:
                raise complaint("a bare machine has one vIOMMU: it is what is tested", at=("iommu",), on_key=True)
        return self


def _check_nested_memory(value: int) -> int:
    if not 192 << 20 <= value <= 2 << 30 or value % (1 << 20):
        raise complaint("a nested guest gets 192MiB to 2GiB, in whole MiB; found {written}", value=value)
    return value


class NestedNic(Section):
    """A NIC that the nested guest's own QEMU emulates, or shares with it (virtio)."""

    model: Literal["e1000e", "virtio-net"] = Field(description="What it is to the guest.")
    via: Name = Field(description="The platform's NIC whose wire it reaches, through a bridge.")


class NestedSection(Section):
    """A guest nested in the machine's own, which plays the platform: steps start it and hand it devices."""

    image: Literal["debian-12", "debian-13"] = Field(default="debian-13", description="Kernel 6.1 or 6.12.")
    memory: Annotated[Size, AfterValidator(_check_nested_memory)] = Field(
        default=256 << 20, description="Its memory, all of which is mapped for each device that it is handed."
    )
    kernel_args: tuple[KernelArgument, ...] = Field(
        default=(), description="Arguments of its kernel besides the harness' own."
    )
    nics: dict[Name, NestedNic] = Field(default={}, description="NICs that it is not handed but given, by name.")


class Requires(Section):
    """What must be there for the scenario to run; otherwise it is skipped with this as the reason."""

    qemu: Annotated[str | None, BeforeValidator(_check_version)] = Field(default=None, description='E.g. ">=10.0".')
    kvm: bool | None = Field(default=None, description="Whether KVM must be usable (true) or must not be (false).")
    host: Literal["lab"] | None = Field(
        default=None, description="lab: the machine must run on another host, named by --host (make: HOST)."
    )


class Refused(Section):
    """QEMU refuses to start this machine, which is what the scenario proves."""

    words: Annotated[str, Field(min_length=1)] = Field(description="Words that QEMU's error message contains.")


class Scenario(Section):
    """A scenario: a machine with devices under test, and steps that prove a promise of VT-d."""

    scenario: Slug = Field(description="The scenario's stable name, unique among all files.")
    title: Annotated[str, Field(min_length=1, max_length=160)] = Field(description="What it proves, in one sentence.")
    tags: tuple[Slug, ...] = Field(default=(), description="Words to select scenarios by.")
    machine: MachineSection = Field(default=MachineSection(), description="The machine.")
    devices: dict[Name, AnyDevice] = Field(default={}, description="Devices under test by name.")
    guests: dict[Name, NestedSection] = Field(
        default={},
        description="Guests nested in the machine's own by name; the machine then has two processors and the memory "
        "that they take besides 1 GiB, unless it says otherwise.",
    )
    steps: tuple[AnyStep, ...] = Field(default=(), description="What is done and expected, in order.")
    start: Literal["template", "cold"] = Field(
        default="template",
        description="template: the machine is restored from a boot that was saved; cold: it is booted for this "
        "variant, for scenarios about boot itself.",
    )
    counter_proof: tuple[Protection, ...] = Field(
        default=(), description="Protections to take away one at a time; the scenario must then turn red."
    )
    requires: Requires = Field(default=Requires(), description="What must be there to run it.")
    refused: Annotated[Refused, Shorthand("words")] | None = Field(
        default=None,
        description="QEMU must refuse this machine with these words; there are no steps then. It is handed the options "
        "of `iommu` as they are written, also what they cannot hold.",
    )

    @model_validator(mode="after")
    def _check_whole(self) -> Self:
        if self.refused and self.steps:
            raise complaint("a machine that is refused runs no steps", at=("steps",), on_key=True)
        if not self.refused and not self.steps:
            raise complaint("the scenario needs 'steps' (or 'refused')", on_key=True)
        if self.refused and self.counter_proof:
            raise complaint("a machine that is refused has no counter-proof", at=("counter_proof",), on_key=True)
        for index, protection in enumerate(self.counter_proof):
            if protection in self.counter_proof[:index]:
                raise complaint("{written} is listed twice", value=protection, at=("counter_proof", index))
            self._check_protection(index, protection)
        self._check_steps()
        self._check_devices()
        self._check_guests()
        if self.machine.kind == "bare":
            self._check_bare()
        if self.requires.host == "lab" or any(device.from_host for device in self.devices.values()):
            for at, why in self.kept_here():
                raise complaint(f"no lab host can run this: {why}", at=at, on_key=True)
        return self

    def kept_here(self) -> Iterator[tuple[NodePath, str]]:
        """Tell what keeps the machine on the host of the harness, each with its place."""
        if self.machine.kind == "bare":
            yield ("machine", "kind"), "on a bare machine QEMU alone is tested, whatever host it runs on"
        if self.guests:
            yield ("guests",), "it has a platform of its own for its guests"
        if self.machine.dmar_override:
            yield ("machine", "dmar_override"), "its machine boots with another DMAR table, which is made here"
        for index, step in enumerate(self.steps):
            if step.acts_from_outside:
                why = "it changes the machine's memory from outside, which needs QEMU's memory here"
                yield ("steps", index, step.keyword), why

    def _check_protection(self, index: int, protection: str) -> None:
        at = ("counter_proof", index)
        if self.machine.kind == "bare" and protection != "unbroken":
            text = "{written} makes no sense on a bare machine, where nothing but the broken tables protects"
            raise complaint(text, value=protection, at=at, suggestion="write unbroken")
        if self.machine.kind == "linux" and protection == "unbroken" and not any(s.breaks_tables for s in self.steps):
            text = "{written} leaves whole what the steps break, but none of them breaks anything"
            raise complaint(text, value=protection, at=at, suggestion="take iommu_off, passthrough or no_viommu")

        forges = any(step.forges_interrupts for step in self.steps)
        if self.machine.kind == "linux" and (protection == "intremap_off") != forges and protection != "unbroken":
            text = "{written} takes no protection from what the steps attack"
            hint = "take intremap_off" if forges else "take iommu_off, passthrough or no_viommu"
            raise complaint(text, value=protection, at=at, suggestion=hint)

    def _check_steps(self) -> None:
        for index, step in enumerate(self.steps):
            if step.machine_kind != self.machine.kind:
                text = f"'{step.keyword}' is a step of a machine with kind: {step.machine_kind}, and this one is"
                raise complaint(f"{text} {self.machine.kind}", at=("steps", index, step.keyword), on_key=True)
            if step.ends_machine and index + 1 < len(self.steps):
                text = f"QEMU may not outlive '{step.keyword}', so no step can follow it"
                raise complaint(text, at=("steps", index + 1), on_key=True)

    def _check_devices(self) -> None:
        for name, device in self.devices.items():
            if device.bare_only and self.machine.kind != "bare":
                text = "{written} is driven on machines without a guest only"
                raise complaint(text, value=device.model_word, at=("devices", name, "model"))
            if device.from_host:
                self._check_from_host(name, device)
            if device.physical_model is not None and self.machine.kind == "linux":
                self._check_physical(name, device)
            elif device.physical is not None:
                text = "on a bare machine a virtual function brings its physical function along"
                raise complaint(text, at=("devices", name, "of"), on_key=True)

    def _check_from_host(self, name: str, device: Device) -> None:
        """QEMU refuses a device of its host behind a vIOMMU without caching mode (vtd_iommu_notify_flag_changed)."""
        if any(options.get("caching_mode") not in ("on", True) for options in self.machine.iommu):
            text = f"'{name}' is a NIC of the host, for which the vIOMMU needs caching_mode: on"
            raise complaint(text, at=("devices", name), on_key=True)
        if device.behind == "bridge":
            raise complaint("a NIC of the host is on PCI Express", at=("devices", name, "behind"), on_key=True)

    def _check_physical(self, name: str, device: Device) -> None:
        if device.physical is None:
            text = f"a virtual function needs 'of', the {device.physical_model} that it belongs to"
            raise complaint(text, at=("devices", name), on_key=True)
        physical = self.devices.get(device.physical)
        if physical is None or physical.model_word != device.physical_model:
            choices = [other for other, each in self.devices.items() if each.model_word == device.physical_model]
            text = f"{{written}} is no {device.physical_model} among the devices"
            at = ("devices", name, "of")
            raise complaint(text, value=device.physical, at=at, word=device.physical, choices=choices)
        if not physical.plugged or not device.plugged:
            text = "virtual functions are made when the steps begin, so they and their physical function are there then"
            raise complaint(text, at=("devices", name, "of"), on_key=True)

    def _check_guests(self) -> None:
        if not self.guests:
            return
        if self.machine.kind == "bare":
            raise complaint("on a bare machine nothing runs, so no guests either", at=("guests",), on_key=True)
        needed = sum(guest.memory for guest in self.guests.values()) + (512 << 20)
        if "memory" in self.machine.model_fields_set and self.machine.memory < needed:
            text = f"its guests need {needed >> 20}MiB; found {{written}}"
            raise complaint(text, value=self.machine.memory, at=("machine", "memory"))
        owners: dict[str, str] = {}
        for name, guest in self.guests.items():
            if name in self.devices:
                text = "{written} is already the name of a device"
                raise complaint(text, value=name, at=("guests", name), on_key=True)
            for nic, given in guest.nics.items():
                at = ("guests", name, "nics", nic)
                if nic in self.devices or nic in self.guests:
                    raise complaint("{written} is already the name of a device or guest", value=nic, at=at, on_key=True)
                if nic in owners:
                    text = f"{{written}} is already the name of a NIC of guest '{owners[nic]}'"
                    raise complaint(text, value=nic, at=at, on_key=True)
                owners[nic] = name
                if given.via not in self.devices or not self.devices[given.via].wired:
                    text = "{written} is no NIC among the devices"
                    raise complaint(text, value=given.via, at=(*at, "via"), word=given.via, choices=self.devices)

    def _check_bare(self) -> None:
        """Complain of what only a machine with a guest has."""
        if "start" in self.model_fields_set:
            raise complaint("a bare machine has nothing to boot or to restore", at=("start",), on_key=True)
        if self.refused:
            raise complaint(
                "a machine that is refused has no tables: leave out kind: bare", at=("refused",), on_key=True
            )
        if self.requires.kvm is not None:
            raise complaint("a bare machine needs no KVM and takes none", at=("requires", "kvm"), on_key=True)
        for name, device in self.devices.items():
            if not device.plugged:
                text = "on a bare machine every device is there from the start"
                raise complaint(text, at=("devices", name, "plugged"), on_key=True)
