"""What a machine's own values rule out: addresses beyond what its unit translates, memory that it does not have.

Each value is right by itself; it is told where it stands.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from harness.machine.properties import IOMMU_DEVICE, QemuFacts, spellings
from harness.memory import offset_in_memory
from harness.scenario.load import Variant
from harness.scenario.model import Scenario
from harness.scenario.step import Step
from harness.scenario.version import satisfies
from harness.source.diagnostics import Diagnostic
from harness.source.nodes import NodePath

_ON = (True, "on")

#: Widths that QEMU's unit can have, by whether it has first-stage tables alone (vtd_decide_config in QEMU's
#: hw/i386/intel_iommu.c).
_WIDTHS = {True: (48,), False: (39, 48)}

#: What a guest that runs guests of its own has besides their memory, and the most memory of a guest, in bytes.
PLATFORM_MEMORY, MOST_MEMORY = 1 << 30, 16 << 30

#: A number as the kernel reads it, with a unit (memparse in lib/cmdline.c), and a range that an argument takes from the
#: kernel (parse_memmap_one in arch/x86/kernel/e820.c; several are separated by commas).
_NUMBER = r"(0x[0-9a-fA-F]+|[0-9]+)([KMGT]?)"
_MEMMAP = re.compile(rf"(?:memmap=)?{_NUMBER}\${_NUMBER}", re.IGNORECASE)
_UNITS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}


def memory_of(scenario: Scenario) -> int:
    """Give the memory of the scenario's machine with Linux, in bytes."""
    if not scenario.guests or "memory" in scenario.machine.model_fields_set:
        return scenario.machine.memory
    return sum(guest.memory for guest in scenario.guests.values()) + PLATFORM_MEMORY


def ruled_out(variant: Variant, facts: QemuFacts) -> Iterator[Diagnostic]:
    """Find what the steps ask for and the machine has no room for."""
    memory = memory_of(variant.scenario)
    if memory > MOST_MEMORY:
        text = f"the guests and the machine that runs them take {_mib(memory)}, of at most {_mib(MOST_MEMORY)}"
        yield variant.diagnostic(("guests",), text, on_key=True)
    width = address_width(variant, facts)
    made: dict[str, int] = {}
    for index, step in enumerate(variant.scenario.steps):
        here = ("steps", index, step.keyword)
        if width is not None:
            yield from _beyond_width(variant, here, step, width)
        yield from _not_reserved(variant, here, step, memory)
        if step.reboots:
            made.clear()
        made |= {name: size for name, size in step.buffers() if name not in made}
        if sum(made.values()) > memory:
            text = (
                f"buffers and canaries take {sum(made.values()) >> 20}MiB by then, and the machine has {_mib(memory)}"
            )
            yield variant.diagnostic(here, text)
            return


def wrong_width(variant: Variant) -> Iterator[Diagnostic]:
    """Find address widths that QEMU refuses; not where it is to be seen refusing the machine."""
    units = variant.scenario.machine.iommu
    for index, options in enumerate(units if variant.scenario.refused is None else ()):
        known = _WIDTHS[options.get("first_stage") in _ON]
        width = options.get("aw_bits", known[0])
        if isinstance(width, int) and not isinstance(width, bool) and width in range(256) and width not in known:
            text = f"QEMU's unit translates addresses of {' or '.join(map(str, known))} bits here"
            path = ("machine", "iommu", *((index,) if len(units) > 1 else ()), "aw_bits")
            yield variant.diagnostic(path, f"{text}; found '{variant.written(path)}'")


def address_width(variant: Variant, facts: QemuFacts) -> int | None:
    """Give the bits of an address that the unit translates, this QEMU's default if the scenario does not say.

    None where nothing translates, or where it cannot be told: the default of a QEMU that will not run it says nothing.
    """
    units = variant.scenario.machine.iommu
    if len(units) != 1:
        return None
    offered = facts.properties.get(IOMMU_DEVICE, {})
    default = next((offered[name].default for name in spellings("aw_bits") if name in offered), None)
    needed = variant.scenario.requires.qemu
    if needed is not None and not satisfies(facts.version, needed):
        default = None
    width = units[0].get("aw_bits", default)
    return width if isinstance(width, int) and not isinstance(width, bool) else None


def _beyond_width(variant: Variant, here: NodePath, step: Step, width: int) -> Iterator[Diagnostic]:
    options = variant.scenario.machine.iommu[0]
    first_stage = options.get("first_stage") in _ON and options.get("scalable_mode") in _ON
    whose = "the unit translates"
    if first_stage and any("sm_on" in argument for argument in variant.scenario.machine.kernel_args):
        # Addresses of first-stage tables are canonical, and Linux maps the lower half of them alone: aperture_end in
        # paging_domain_alloc of its drivers/iommu/intel/iommu.c.
        width, whose = width - 1, "Linux maps by first-stage tables"
    ranges = [("iova", mapping.iova, mapping.size) for mapping in step.mappings()]
    ranges += [(dma.place_key, dma.place.offset, dma.length) for dma in step.dmas() if dma.place.name is None]
    ranges += [(key, address, 1) for key, address in step.walked()]
    ranges += [(reserved.key, reserved.address, reserved.size) for reserved in step.reserved()]
    for key, begin, size in ranges:
        if begin + size > 1 << width:
            where = f"{begin:#x} to {begin + size - 1:#x}" if size > 1 else f"{begin:#x}"
            text = f"{where} is beyond the {width} bits that {whose}"
            line = variant.span(("machine", "iommu", "aw_bits")).line
            hint = (
                f"aw_bits stands in line {line}"
                if "aw_bits" in options
                else "QEMU's default; give aw_bits in machine.iommu"
            )
            yield variant.diagnostic((*here, key), text, hint)


def _not_reserved(variant: Variant, here: NodePath, step: Step, memory: int) -> Iterator[Diagnostic]:
    kept = [taken for argument in variant.scenario.machine.kernel_args for taken in _taken(argument)]
    for wanted in step.reserved():
        begin, end = wanted.address, wanted.address + wanted.size
        if offset_in_memory(memory, begin, wanted.size) is None:
            text = f"{begin:#x} to {end - 1:#x} is no memory of this machine, which has {_mib(memory)}"
            yield variant.diagnostic((*here, wanted.key), text)
        elif not any(address <= begin and end <= address + size for address, size in kept):
            text = f"the guest's kernel would take {begin:#x} to {end - 1:#x} for itself"
            hint = f"add 'memmap={wanted.size >> 10}K${begin:#x}' to its kernel_args"
            yield variant.diagnostic((*here, wanted.key), text, hint)


def _taken(argument: str) -> Iterator[tuple[int, int]]:
    """The ranges that a kernel argument takes from the kernel: address and bytes."""
    for match in map(_MEMMAP.fullmatch, argument.split(",") if argument.startswith("memmap=") else ()):
        if match:
            size, address = (int(match[n], 0) << _UNITS[match[n + 1].upper()] for n in (1, 3))
            yield address, size


def _mib(size: int) -> str:
    return f"{size >> 20}MiB"
