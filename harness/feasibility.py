"""What a well-formed scenario asks for that cannot be done, told at its line before anything boots."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from harness.bare_feasibility import wrong_on_bare
from harness.machine.argv import MAX_ROOT_PORTS
from harness.machine.properties import QemuFacts, resolve
from harness.machine.spec import IommuSpec
from harness.scenario.device import Device
from harness.scenario.load import Variant
from harness.scenario.model import Scenario
from harness.scenario.step import IssuedDma, Mapped, Step
from harness.session import STAGING_BASE, STAGING_END
from harness.source.diagnostics import Diagnostic, did_you_mean

#: The longest buffer the guest agent makes.
LARGEST_BUFFER = 64 << 20

#: Addresses that reach the interrupt controller and are never translated (VT-d spec 3.14).
INTERRUPT_RANGE = range(0xFEE0_0000, 0xFEF0_0000)


def infeasible(variant: Variant, facts: QemuFacts) -> Iterable[Diagnostic]:
    """Find everything in `variant` that the QEMU with these `facts`, the machine or the devices cannot do."""
    yield from _wrong_options(variant, facts)
    yield from _wrong_machine(variant, facts)
    yield from _proves_nothing(variant)
    if variant.scenario.machine.kind == "bare":
        yield from wrong_on_bare(variant)
    else:
        yield from _wrong_steps(variant)


def _wrong_options(variant: Variant, facts: QemuFacts) -> Iterator[Diagnostic]:
    several = len(variant.scenario.machine.iommu) > 1
    for index, options in enumerate(variant.scenario.machine.iommu):
        for problem in resolve(IommuSpec(options), facts).problems:
            if problem.unsupported:
                continue  # another QEMU has it: the scenario is skipped with this reason
            path = ("machine", "iommu", *((index,) if several else ()), problem.key)
            hint = f"did you mean '{problem.suggestion}'?" if problem.suggestion else None
            yield variant.diagnostic(path, problem.why, hint, on_key=problem.suggestion is not None)


def _wrong_machine(variant: Variant, facts: QemuFacts) -> Iterator[Diagnostic]:
    cpu = variant.scenario.machine.cpu
    if cpu is not None and cpu not in facts.cpus:
        hint = did_you_mean(cpu, facts.cpus, plural="models")
        yield variant.diagnostic(("machine", "cpu"), f"QEMU {facts.version} has no CPU model '{cpu}'", hint)
    behind_ports = [
        name
        for name, device in variant.scenario.devices.items()
        if device.behind == "root-port" and not device.physical
    ]
    for name in behind_ports[MAX_ROOT_PORTS:]:
        text = f"a machine has {MAX_ROOT_PORTS} root ports; '{name}' finds none left"
        yield variant.diagnostic(("devices", name), text, on_key=True)


def _proves_nothing(variant: Variant) -> Iterator[Diagnostic]:
    scenario = variant.scenario
    blocks = [index for index, step in enumerate(scenario.steps) if step.expects_block]
    if scenario.steps and not any(step.states_something for step in scenario.steps):
        hint = "add a step that states what is expected, such as dma with expect"
        text = "no step of this scenario can fail, so it proves nothing"
        yield variant.diagnostic(("steps",), text, hint, on_key=True)
    if scenario.counter_proof and not blocks:
        text = "no step expects a DMA to be blocked, so there is nothing to prove the opposite of"
        yield variant.diagnostic(("counter_proof",), text, on_key=True)
    bare = scenario.machine.kind == "bare"  # each of its steps has a positive control of its own
    if blocks and not bare and not any(step.is_control for step in scenario.steps):
        text = "a block proves nothing without a positive control"
        hint = "add a dma that must land: expect: landed"
        yield variant.diagnostic(("steps", blocks[0]), text, hint, on_key=True)
    if blocks and not scenario.counter_proof:
        text = "a block proves nothing without a counter-proof"
        hint = f"add counter_proof: {'[unbroken]' if bare else '[iommu_off, passthrough]'}"
        yield variant.diagnostic(("steps", blocks[0]), text, hint, on_key=True)


def _wrong_steps(variant: Variant) -> Iterator[Diagnostic]:
    """Follow the steps: who is assigned by then, how long each buffer is, what is mapped where."""
    devices = variant.scenario.devices
    books = _Books()
    for index, step in enumerate(variant.scenario.steps):
        here = ("steps", index, step.keyword)
        unmet = (
            *_unmet(step, devices, books.domains),
            *_unmet_functions(step, devices),
            *_unmet_in_guests(step, books),
            *_wrong_handovers(step, devices, books),
            *_without_nics(step, variant.scenario, books),
            *_lost(step, devices, books),
        )
        for text in unmet:
            yield variant.diagnostic(here, text)
        for dma in step.dmas():
            yield from _wrong_dma(variant, here, dma, devices.get(dma.device), books)
        for mapping in step.mappings():
            yield from _wrong_mapping(variant, here, mapping, books)
        books.follow(step)
    if any(step.assignments() for step in variant.scenario.steps):
        yield from _no_unit(variant)


@dataclass(slots=True)
class _Books:
    """What holds after the steps so far.

    Domains by device, sizes of buffers, mappings by domain and all there were, the nested guests that run, the guest
    that has each device, and the buffers that a reboot took.
    """

    domains: dict[str, str] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    live: dict[str, list[Mapped]] = field(default_factory=dict)
    ever: list[Mapped] = field(default_factory=list)
    running: set[str] = field(default_factory=set)
    holders: dict[str, str] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)

    def follow(self, step: Step) -> None:
        if step.reboots:
            self.gone |= set(self.sizes)
            for books in (self.domains, self.sizes, self.live, self.ever):
                books.clear()
        self.running |= set(step.starts_guests())
        self.holders |= dict(step.handovers())
        for guest in step.stops_guests():
            self.running.discard(guest)
            self.holders = {device: holder for device, holder in self.holders.items() if holder != guest}
            self.domains = {device: domain for device, domain in self.domains.items() if domain != guest}
        self.sizes |= {name: size for name, size in step.buffers() if name not in self.sizes}
        self.gone -= set(self.sizes)
        for device, domain in step.assignments():
            if domain is None:
                left = self.domains.pop(device, None)
                if left is not None and left not in self.domains.values():
                    self.live.pop(left, None)
            else:
                self.domains[device] = domain
        for mapping in step.mappings():
            self.live.setdefault(self.domains.get(mapping.device, ""), []).append(mapping)
            self.ever.append(mapping)
        for device, buffer in step.unmappings():
            known = self.live.get(self.domains.get(device, ""), [])
            known[:] = [mapping for mapping in known if mapping.buffer != buffer]


def _no_unit(variant: Variant) -> Iterator[Diagnostic]:
    machine = variant.scenario.machine
    text = "there is no remapping unit then, so no device can be assigned to a domain"
    if not machine.iommu:
        yield variant.diagnostic(("machine", "iommu"), text)
    for index, argument in enumerate(machine.kernel_args):
        if argument == "intel_iommu=off":
            yield variant.diagnostic(("machine", "kernel_args", index), text)


def _wrong_mapping(
    variant: Variant, here: tuple[str | int, ...], mapping: Mapped, books: _Books
) -> Iterator[Diagnostic]:
    end = mapping.iova + mapping.size
    if mapping.size > LARGEST_BUFFER:
        yield variant.diagnostic((*here, "size"), f"a buffer has up to {LARGEST_BUFFER >> 20}MiB")
    if end > STAGING_BASE and mapping.iova < STAGING_END:
        text = f"the mapping reaches into {STAGING_BASE:#x} to {STAGING_END - 1:#x}, where the staging pages are"
        yield variant.diagnostic((*here, "iova"), text)
    if mapping.iova < INTERRUPT_RANGE.stop and end > INTERRUPT_RANGE.start:
        text = f"{INTERRUPT_RANGE.start:#x} to {INTERRUPT_RANGE.stop - 1:#x} is the interrupt range, never translated"
        yield variant.diagnostic((*here, "iova"), text)
    for known in books.live.get(books.domains.get(mapping.device, ""), []):
        if known.iova < end and mapping.iova < known.iova + known.size:
            text = f"overlaps '{known.buffer}', mapped at {known.iova:#x} in the same domain"
            yield variant.diagnostic((*here, "iova"), text)


def _unmet(step: Step, devices: Mapping[str, Device], assigned: Mapping[str, str]) -> Iterator[str]:
    for name in step.needs_assigned():
        if name not in assigned:
            yield f"'{name}' is not assigned to a domain by then; put an 'assign' before"
    for name in step.needs_kernel_driver():
        device = devices.get(name)
        if device is not None and not device.wired:
            yield f"'{name}' ({device.model_word}) is no NIC"
        elif name in assigned:
            yield f"'{name}' is assigned by then; put a 'release' to the kernel before"
    for name in step.needs_unplugged():
        if name in devices and devices[name].plugged:
            yield f"'{name}' is there from the start; declare it with plugged: false"


def _unmet_functions(step: Step, devices: Mapping[str, Device]) -> Iterator[str]:
    """Find what is no virtual function, has none, or is one of another NIC than it must be."""
    for name in step.needs_functions():
        if name in devices and all(device.physical != name for device in devices.values()):
            yield f"'{name}' ({devices[name].model_word}) has no virtual functions"
    functions = step.needs_one_nic()
    for name in functions:
        if name in devices and devices[name].physical is None:
            yield f"'{name}' ({devices[name].model_word}) is no virtual function"
    if len(set(functions)) < len(functions):
        yield f"'{functions[0]}' cannot be beside itself"
    elif len({devices[name].physical for name in functions if name in devices}) > 1:
        yield f"{' and '.join(map(repr, functions))} are not virtual functions of one NIC"


def _unmet_in_guests(step: Step, books: _Books) -> Iterator[str]:
    for guest in step.starts_guests():
        if guest in books.running:
            yield f"guest '{guest}' runs already"
    for guest in step.needs_guests():
        if guest not in books.running:
            yield f"guest '{guest}' does not run by then; put a 'start' before"
    handed = dict(step.needs_handed())
    for device, guest in handed.items():
        if books.holders.get(device) != guest:
            yield f"guest '{guest}' was not handed '{device}' by then; put it into 'assigns' of its 'start'"
    by_platform = [device for device, _ in step.assignments()]
    by_platform += [mapping.device for mapping in step.mappings()] + [device for device, _ in step.unmappings()]
    for device in by_platform:
        if device in books.holders and device not in handed:
            yield f"guest '{books.holders[device]}' has '{device}' by then"


def _wrong_handovers(step: Step, devices: Mapping[str, Device], books: _Books) -> Iterator[str]:
    handovers = [device for device, _ in step.handovers()]
    for device in dict.fromkeys(handovers):
        if handovers.count(device) > 1:
            yield f"'{device}' is handed over twice"
        elif device in books.holders:
            yield f"guest '{books.holders[device]}' has '{device}' already"
        elif device in books.domains:
            yield f"'{device}' is assigned by then; put a 'release' before"
        elif device in devices and devices[device].kernel_driver is None:
            yield f"'{device}' ({devices[device].model_word}) has no driver in a guest's kernel, so none could drive it"


def _lost(step: Step, devices: Mapping[str, Device], books: _Books) -> Iterator[str]:
    """Find what a reboot takes away: the buffers there were, nested guests, virtual functions."""
    for reference in step.references():
        if not reference.defines and reference.name in books.gone:
            yield f"'{reference.name}' went with the reboot; make another"
    if step.reboots:
        for guest in sorted(books.running):
            yield f"guest '{guest}' runs by then; put a 'stop' before"
        for name, device in devices.items():
            if device.physical is not None:
                yield f"'{name}' is a virtual function, and those do not outlive a reboot"


def _without_nics(step: Step, scenario: Scenario, books: _Books) -> Iterator[str]:
    for name, guest in step.needs_nics():
        device = scenario.devices.get(name)
        if device is None:
            if guest in scenario.guests and name not in scenario.guests[guest].nics:
                yield f"'{name}' is no NIC of guest '{guest}'"
        elif not device.wired:
            yield f"'{name}' ({device.model_word}) is no NIC"
        elif books.holders.get(name) != guest:
            yield f"guest '{guest}' was not handed '{name}' by then; put it into 'assigns' of its 'start'"
        elif name in books.domains:
            yield f"user space of guest '{guest}' drives '{name}' by then"


def _wrong_dma(
    variant: Variant, here: tuple[str | int, ...], dma: IssuedDma, device: Device | None, books: _Books
) -> Iterator[Diagnostic]:
    if device is None:
        return
    who = f"'{dma.device}' ({device.model_word})"
    if not device.max_dma:
        yield variant.diagnostic((*here, "device"), f"{who} cannot be told to issue a DMA")
    elif not device.min_dma <= dma.length <= device.max_dma:
        text = f"{who} moves {device.min_dma} to {device.max_dma} bytes in one DMA"
        yield variant.diagnostic((*here, dma.length_key), text)
    begin, end = dma.place.offset, dma.place.offset + dma.length
    if dma.place.name is None and not any(m.iova <= begin and end <= m.iova + m.size for m in books.ever):
        text = f"nothing was mapped at {begin:#x} by then, so no bytes could tell what happened there"
        yield variant.diagnostic((*here, dma.place_key), text, "map a buffer there before, or aim at a canary")
    size = books.sizes.get(dma.place.name or "")
    if size is not None and dma.place.offset + dma.length > size:
        text = f"'{dma.place.name}' has {size} bytes; {dma.length} at {dma.place.offset:#x} reach beyond"
        yield variant.diagnostic((*here, dma.place_key), text)
