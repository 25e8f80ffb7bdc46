"""What each step needs of those before it: who is assigned by then, which nested guests run, who has which device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from harness.scenario.device import Device
from harness.scenario.model import Scenario
from harness.scenario.step import Mapped, Step


def unmet(step: Step, scenario: Scenario, books: Books) -> Iterator[str]:
    """Tell what `step` needs and does not find, by what the steps before have left in `books`."""
    devices = scenario.devices
    yield from _unmet(step, devices, books.domains)
    yield from _unmet_models(step, devices)
    yield from _unmet_functions(step, devices)
    yield from _unmet_in_guests(step, books)
    yield from _unmet_of_guests(step, scenario, books)
    yield from _wrong_handovers(step, devices, books)
    yield from _without_nics(step, scenario, books)
    yield from _lost(step, devices, books)


@dataclass(slots=True)
class Books:
    """What holds after the steps so far.

    Domains by device, sizes of buffers, mappings by domain and all there were, the nested guests that run, the guest
    that has each device, those whose real MSI-X tables lie open there, and the buffers that a reboot took.
    """

    domains: dict[str, str] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    live: dict[str, list[Mapped]] = field(default_factory=dict)
    ever: list[Mapped] = field(default_factory=list)
    running: set[str] = field(default_factory=set)
    holders: dict[str, str] = field(default_factory=dict)
    exposed: set[str] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)

    def follow(self, step: Step) -> None:
        """Take down what holds after `step`."""
        if step.reboots:
            self.gone |= set(self.sizes)
            for books in (self.domains, self.sizes, self.live, self.ever):
                books.clear()
        self.running |= set(step.starts_guests())
        self.holders |= dict(step.handovers())
        self.exposed |= set(step.exposes())
        for guest in step.stops_guests():
            self.running.discard(guest)
            self.holders = {device: holder for device, holder in self.holders.items() if holder != guest}
            self.domains = {device: domain for device, domain in self.domains.items() if domain != guest}
            self.exposed &= set(self.holders)
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


def _unmet(step: Step, devices: Mapping[str, Device], assigned: Mapping[str, str]) -> Iterator[str]:
    for name in step.needs_assigned():
        if name not in assigned:
            yield f"'{name}' is not assigned to a domain by then; put an 'assign' before"
    for name in step.needs_kernel_driver():
        device = devices.get(name)
        if device is not None and not device.wired:
            yield _no_wire(name, device)
        elif name in assigned:
            yield f"'{name}' is assigned by then; put a 'release' to the kernel before"
    for name in step.needs_unplugged():
        if name in devices and devices[name].plugged:
            yield f"'{name}' is there from the start; declare it with plugged: false"


def _no_wire(name: str, device: Device) -> str:
    who = f"'{name}' ({device.model_word})"
    return f"{who} has no wire to the harness; 'dma' drives it" if device.from_host else f"{who} is no NIC"


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


def _unmet_in_guests(step: Step, books: Books) -> Iterator[str]:
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


def _unmet_models(step: Step, devices: Mapping[str, Device]) -> Iterator[str]:
    for name, models in step.needs_models():
        if name in devices and devices[name].model_word not in models:
            yield f"'{name}' ({devices[name].model_word}) is no {' or '.join(models)}"


def _unmet_of_guests(step: Step, scenario: Scenario, books: Books) -> Iterator[str]:
    for device in step.needs_exposed():
        if device in books.holders and device not in books.exposed:
            guest = books.holders[device]
            yield f"guest '{guest}' does not reach the MSI-X table of '{device}'; start it with msix_exposed: on"
    for guest, argument in step.needs_kernel_args():
        if guest in scenario.guests and argument not in scenario.guests[guest].kernel_args:
            yield f"the kernel of guest '{guest}' needs the argument {argument}; put it into its kernel_args"


def _wrong_handovers(step: Step, devices: Mapping[str, Device], books: Books) -> Iterator[str]:
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


def _lost(step: Step, devices: Mapping[str, Device], books: Books) -> Iterator[str]:
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


def _without_nics(step: Step, scenario: Scenario, books: Books) -> Iterator[str]:
    for name, guest in step.needs_nics():
        device = scenario.devices.get(name)
        if device is None:
            if guest in scenario.guests and name not in scenario.guests[guest].nics:
                yield f"'{name}' is no NIC of guest '{guest}'"
        elif not device.wired:
            yield _no_wire(name, device)
        elif books.holders.get(name) != guest:
            yield f"guest '{guest}' was not handed '{name}' by then; put it into 'assigns' of its 'start'"
        elif name in books.domains:
            yield f"user space of guest '{guest}' drives '{name}' by then"
