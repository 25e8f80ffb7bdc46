"""What a scenario declares or makes and no step of it uses: told as a remark, for it may be meant."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from harness.scenario.load import Variant
from harness.scenario.step import IssuedDma, Mapped
from harness.source.diagnostics import Diagnostic
from harness.source.nodes import NodePath

#: What brings each kind of thing into use, for the hint.
_USES = {
    "device": "no step names it",
    "guest": "no step starts it",
    "nic": "no step names it",
    "buffer": "no other step names it",
    "canary": "no DMA is aimed at it and no step looks at it",
}


def unused(variants: Sequence[Variant]) -> list[Diagnostic]:
    """Find devices, guests, their NICs, buffers and canaries that no step uses in any of one scenario's variants.

    Where no step names a device at all, the machine as a whole is looked at, and its devices are there for that. A
    domain is used by the device that is put into it, a buffer also by a DMA to its address and by broken tables.
    """
    used = {key for variant in variants for key in _used(variant)}
    remarks: dict[tuple[str, str], Diagnostic] = {}
    for variant in variants:
        for kind, name, path in _given(variant):
            if (kind, name) not in used:
                remark = variant.diagnostic(
                    path, f"{kind} '{name}' is not used", _USES[kind], on_key=path[0] != "steps"
                )
                remarks.setdefault((kind, name), replace(remark, kind="remark"))
        for path, name, meant in _slips(variant):
            remark = variant.diagnostic(path, f"no other device is in domain '{name}'", f"did you mean '{meant}'?")
            remarks.setdefault(("domain", name), replace(remark, kind="remark"))
    return list(remarks.values())


def _slips(variant: Variant) -> Iterator[tuple[NodePath, str, str]]:
    """Domains of one device whose name is that of another but for two letters changed over or one too many."""
    named = [
        (("steps", index, *reference.where), reference.name)
        for index, step in enumerate(variant.scenario.steps)
        for reference in step.references()
        if reference.defines
        and reference.kinds == ("domain",)
        and "domain" in variant.document.locate(("steps", index, *reference.where))
    ]
    names = [name for _, name in named]
    for position, (path, name) in enumerate(named):
        others = [other for other in names[:position] if _slip(name, other)]
        if names.count(name) == 1 and others:
            yield path, name, others[0]


def _slip(one: str, other: str) -> bool:
    if len(one) == len(other):
        unlike = [index for index, (a, b) in enumerate(zip(one, other, strict=True)) if a != b]
        first = unlike[0] if len(unlike) == 2 else 0
        return len(unlike) == 2 and one[first : first + 2] == other[first : first + 2][::-1]
    short, long = sorted((one, other), key=len)
    missing = [long[i] for i in range(len(long)) if long[:i] + long[i + 1 :] == short]
    return any(letter.isalpha() for letter in missing)


def _given(variant: Variant) -> Iterator[tuple[str, str, NodePath]]:
    """What there is to be used: kind, name, and where the name is given."""
    scenario = variant.scenario
    named = [r for step in scenario.steps for r in step.references() if "device" in r.kinds]
    for name in scenario.devices if named else ():
        yield "device", name, ("devices", name)
    for name, guest in scenario.guests.items():
        yield "guest", name, ("guests", name)
        for nic in guest.nics:
            yield "nic", nic, ("guests", name, "nics", nic)
    for index, step in enumerate(scenario.steps):
        for reference in step.references():
            if reference.defines and reference.kinds[0] in _USES:
                yield reference.kinds[0], reference.name, ("steps", index, *reference.where)


def _used(variant: Variant) -> Iterator[tuple[str, str]]:
    scenario = variant.scenario
    defined: dict[str, str] = {}
    mapped: list[Mapped] = []
    for step in scenario.steps:
        mapped += step.mappings()
        for mapping in mapped:
            if step.breaks_tables or any(_meets(dma, mapping) for dma in step.dmas()):
                yield "buffer", mapping.buffer
        for reference in step.references():
            if not reference.defines:
                kinds = (defined[reference.name],) if reference.name in defined else reference.kinds
                yield from ((kind, reference.name) for kind in kinds)
            elif reference.name in defined:  # the same once more, for another device
                yield defined[reference.name], reference.name
            else:
                defined[reference.name] = reference.kinds[0]
    for device in scenario.devices.values():
        if device.physical is not None:
            yield "device", device.physical
    for guest in scenario.guests.values():
        yield from (("device", nic.via) for nic in guest.nics.values())


def _meets(dma: IssuedDma, mapping: Mapped) -> bool:
    """Whether a DMA is aimed by address at what is mapped."""
    place = dma.place
    return place.name is None and mapping.iova <= place.offset < mapping.iova + mapping.size
