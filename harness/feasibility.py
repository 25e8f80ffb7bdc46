"""What a well-formed scenario asks for that cannot be done, told at its line before anything boots."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from harness.bare_feasibility import wrong_on_bare
from harness.machine.argv import MAX_ROOT_PORTS
from harness.machine.properties import QemuFacts, resolve
from harness.machine.spec import IommuSpec
from harness.own_values import ruled_out, wrong_width
from harness.scenario.device import Device
from harness.scenario.load import Variant
from harness.scenario.step import IssuedDma, Mapped
from harness.session import STAGING_BASE, STAGING_END
from harness.source.diagnostics import Diagnostic, did_you_mean
from harness.step_needs import Books, unmet
from harness.vtd.interrupts import INTERRUPT_RANGE

#: The longest buffer the guest agent makes.
LARGEST_BUFFER = 64 << 20


def infeasible(variant: Variant, facts: QemuFacts) -> Iterable[Diagnostic]:
    """Find everything in `variant` that the QEMU with these `facts`, the machine or the devices cannot do."""
    yield from _wrong_options(variant, facts)
    yield from wrong_width(variant)
    yield from _wrong_machine(variant, facts)
    yield from _proves_nothing(variant)
    if variant.scenario.machine.kind == "bare":
        yield from wrong_on_bare(variant, facts)
    else:
        yield from _wrong_steps(variant)
        yield from ruled_out(variant, facts)


def _wrong_options(variant: Variant, facts: QemuFacts) -> Iterator[Diagnostic]:
    several = len(variant.scenario.machine.iommu) > 1
    for index, options in enumerate(variant.scenario.machine.iommu):
        unit = IommuSpec(options, as_written=variant.scenario.refused is not None)
        for problem in resolve(unit, facts).problems:
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
    books = Books()
    for index, step in enumerate(variant.scenario.steps):
        here = ("steps", index, step.keyword)
        for text in unmet(step, variant.scenario, books):
            yield variant.diagnostic(here, text)
        for dma in step.dmas():
            yield from _wrong_dma(variant, here, dma, devices.get(dma.device), books)
        for mapping in step.mappings():
            yield from _wrong_mapping(variant, here, mapping, books)
        books.follow(step)
    if any(step.assignments() for step in variant.scenario.steps):
        yield from _no_unit(variant)


def _no_unit(variant: Variant) -> Iterator[Diagnostic]:
    machine = variant.scenario.machine
    text = "there is no remapping unit then, so no device can be assigned to a domain"
    if not machine.iommu:
        yield variant.diagnostic(("machine", "iommu"), text)
    for index, argument in enumerate(machine.kernel_args):
        if argument == "intel_iommu=off":
            yield variant.diagnostic(("machine", "kernel_args", index), text)


def _wrong_mapping(
    variant: Variant, here: tuple[str | int, ...], mapping: Mapped, books: Books
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


def _wrong_dma(
    variant: Variant, here: tuple[str | int, ...], dma: IssuedDma, device: Device | None, books: Books
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
