"""What a scenario of a bare machine asks for that its tables or devices do not have, told at its line."""

from __future__ import annotations

from collections.abc import Iterator

from harness.machine.properties import QemuFacts
from harness.machine.spec import Translation
from harness.own_values import address_width
from harness.scenario.device import Device
from harness.scenario.edit import Edit
from harness.scenario.load import Variant
from harness.scenario.step import Step
from harness.source.diagnostics import Diagnostic, did_you_mean

_ON = (True, "on")

#: What the options of the vIOMMU must be for each kind of tables; None: it does not matter.
_OFFERS: dict[Translation, tuple[bool | None, bool | None]] = {
    "legacy": (None, None),
    "second-stage": (True, False),
    "first-stage": (True, True),
}


def wrong_on_bare(variant: Variant, facts: QemuFacts) -> Iterator[Diagnostic]:
    """Find what the tables, the vIOMMU or the devices of a bare machine lack for the steps."""
    machine = variant.scenario.machine
    options = machine.iommu[0]
    scalable, first = (options.get(key) in _ON for key in ("scalable_mode", "first_stage"))
    for wanted, has, key in zip(
        _OFFERS[machine.translation], (scalable, first), ("scalable_mode", "first_stage"), strict=True
    ):
        if wanted is not None and wanted is not has:
            text = f"{machine.translation} tables need iommu: {{{key}: {'on' if wanted else 'off'}}}"
            yield variant.diagnostic(("machine", "translation"), text)
    for index, step in enumerate(variant.scenario.steps):
        for path, edit in step.edits():
            problem = _misplaced(edit, machine.translation, narrow=address_width(variant, facts) == 39)
            if problem is not None:
                yield variant.diagnostic(("steps", index, *path), *problem)
        for name, what, path in step.needs_engine():
            device = variant.scenario.devices.get(name)
            inability = None if device is None else _unable(device, what, step)
            if device is not None and inability is not None:
                yield variant.diagnostic(("steps", index, *path), f"'{name}' ({device.model_word}) {inability}")


def _unable(device: Device, what: str, step: Step) -> str | None:
    """Tell why `device` cannot do what a step wants of it."""
    if what not in device.bare:
        known = " and ".join(sorted(device.bare))
        return f"can only {known} on a bare machine" if known else "cannot be told anything on a bare machine"
    longest = device.max_dma if device.bare_max_dma is None else device.bare_max_dma
    if step.bare_length is not None and not device.min_dma <= step.bare_length <= longest:
        lengths = f"{longest}" if device.min_dma == longest else f"{device.min_dma} to {longest}"
        return f"moves {lengths} bytes in one DMA on a bare machine, not {step.bare_length}"
    if device.queued and any(edit.entry not in ("leaf", "level-1") for _, edit in step.edits()):
        return "fetches its ring through the same tables: break the leaf, or go to an address that nothing maps"
    return None


def _misplaced(edit: Edit, translation: Translation, *, narrow: bool) -> tuple[str, str | None] | None:
    """Tell what is wrong with an edit in tables of this kind, and what was meant."""
    structure = edit.structure(translation)
    if structure is None:
        return f"{translation} tables have no entry '{edit.entry}'", None
    if edit.entry == "level-5" or (edit.entry == "level-4" and narrow and translation != "first-stage"):
        return f"the tables of this machine have {3 if narrow else 4} levels", None
    if edit.field is not None and edit.field not in structure.fields():
        hint = did_you_mean(edit.field, structure.fields(), plural="fields")
        return f"'{edit.field}' is not a field of {structure.__name__}, which is what '{edit.entry}' is here", hint
    if edit.bit is not None and edit.bit >= 8 * structure.SIZE:
        return f"{structure.__name__} has {8 * structure.SIZE} bits", None
    return None
