"""docs/scenarios.md: every key a scenario may have, written from the same schema that editors use."""

from __future__ import annotations

from typing import Any

from harness.scenario.schema import json_schema
from harness.scenario.step import STEPS
from harness.vtd.faults import REASON_BY_NAME

_HEAD = """\
# Scenario files

<!-- Written by `harness schema` from the models; do not edit. -->

One scenario a file, in `scenarios/`. Unknown keys are errors at every depth. `on` and `off`, addresses such as
`00:02.0` and hexadecimal numbers stay what you wrote; sizes are `64KiB`, `2MiB` or bytes. A key with a default may be
left out. Any step may have a `note` beside it, which the report shows.
"""

_CHECKED = """\
## What is checked

Files are checked before anything boots: names, types, what the machine and its devices can do, and values against each
other, such as each address against the width of the unit (`aw_bits`, or the default of the QEMU at hand). A message
that is not about all variants names those that it is about. A device, guest, buffer or canary that no step uses, and a
domain of one device that is most likely another's name misspelt, are told as remarks, which fail nothing; where no step
names any device, the machine as a whole is looked at.
"""

_TARGETS = """\
## Places

A DMA is aimed at a buffer or canary (`victim`), an offset into one (`own+0x1000`), or an address that a `map` step made
valid (`0x100000`). The device is given the address that its own domain, or else another's, has for that memory; for
memory that no domain maps, and in a counter-proof, it is the guest-physical address.
"""

_MATRIX = """\
## Matrix

`matrix` runs a scenario in variants. A mapping gives lists of values by dotted path, and every combination runs; a list
gives rows of values, each with a `name`. `steps.<keyword>.<field>` reaches into the one step with that keyword.
A value stands in place of the scenario's; a row's `tags` are all that it has. A path through `devices` or `guests` goes
through one that is declared, and no two variants may come to the same plan.

```yaml
matrix:
  machine.image: [debian-13, debian-12]
```

```yaml
matrix:
  - {name: lazy,   machine.kernel_args: [iommu.strict=0], steps.iommu_state.domains: DMA-FQ}
  - {name: strict, machine.kernel_args: [iommu.strict=1], steps.iommu_state.domains: DMA}
```
"""

_PROOFS = """\
## Counter-proofs

`iommu_off` boots with `intel_iommu=off`, `passthrough` with `iommu=pt`, `no_viommu` without a vIOMMU. Devices are then
driven by their registers, without VFIO, and given guest-physical addresses. Every DMA of the scenario must land.
`intremap_off` boots with `intremap=off`, and VFIO told to take the risk: the DMA of devices stays translated, and every
interrupt of the scenario must come.
"""


def markdown() -> str:
    """The whole page; the same registrations give the same text."""
    schema = json_schema()
    definitions: dict[str, Any] = schema["$defs"]
    bodies = {word: definitions[STEPS[word].__name__] for word in STEPS}
    parts = [_HEAD, "## The file\n", _table(schema, skip=("matrix",))]
    parts += ["## machine\n", _table(definitions["MachineSection"])]
    parts += ["## requires\n", _table(definitions["Requires"])]
    parts += ["## devices\n", _devices(schema, definitions), "## Steps\n"]
    for word, step in bodies.items():
        parts += [f"### {word}\n", f"{step['description']}\n", _table(_body(step["properties"][word], definitions))]
        if "expect" in step["properties"]:
            parts.append(f"`expect` beside it: {step['properties']['expect']['description']}\n")
        if (short := _short_form(step["properties"][word])) is not None:
            parts.append(f"Short: `{word}: {short.upper()}`.\n")
    parts += [_TARGETS, _MATRIX, _CHECKED, _PROOFS, "## Fault reasons\n", _reasons()]
    return "\n".join(parts)


def _short_form(field: dict[str, Any]) -> str | None:
    """The key whose bare value may stand for the whole section."""
    return field.get("x-short")


def _body(field: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """The section behind a step's keyword, short form or not, or that of each item of a list."""
    options = [field, *field.get("anyOf", ()), *([field["items"]] if "items" in field else ())]
    reference = next(option["$ref"] for option in options if "$ref" in option)
    section: dict[str, Any] = definitions[reference.rsplit("/", 1)[1]]
    return section


def _table(section: dict[str, Any], *, skip: tuple[str, ...] = ()) -> str:
    required = section.get("required", ())
    lines = ["| key | default | meaning |", "| --- | --- | --- |"]
    for key, field in section["properties"].items():
        if key not in skip:
            default = "required" if key in required else _default(field.get("default"))
            lines.append(f"| `{key}` | {default} | {_meaning(field)} |")
    return "\n".join(lines) + "\n"


def _default(value: Any) -> str:
    if value is None or value in ([], {}):
        return ""
    if isinstance(value, dict):
        return ""
    if isinstance(value, list):
        return ", ".join(
            _default(item) if not isinstance(item, dict) else f"`{item}`".replace("'", "") for item in value
        )
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{_size(value)}`" if isinstance(value, int) else f"`{value}`"


def _size(value: int) -> str:
    """A number as an author would write it."""
    for unit, factor in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if value >= factor and value % factor == 0:
            return f"{value // factor}{unit}"
    return str(value)


def _meaning(field: dict[str, Any]) -> str:
    choices = field.get("enum") or next((o["enum"] for o in field.get("anyOf", ()) if "enum" in o), None)
    words = field.get("description", "").replace("|", "\\|")
    named = [choice for choice in choices or () if isinstance(choice, str)]
    listed = ", ".join(f"`{choice}`" for choice in named) if len(named) > 1 else ""
    return f"{words} One of {listed}." if listed and not words.endswith(listed) else words


def _devices(schema: dict[str, Any], definitions: dict[str, Any]) -> str:
    lines = ["`devices` maps names to devices. Every device has these keys:\n", _table(definitions["Device"])]
    lines += ["| model | what it is |", "| --- | --- |"]
    for option in schema["properties"]["devices"]["additionalProperties"]["anyOf"]:
        device = definitions[option["$ref"].rsplit("/", 1)[1]]
        lines.append(f"| `{device['properties']['model']['const']}` | {device['description']} |")
    return "\n".join(lines) + "\n"


def _reasons() -> str:
    lines = ["| name | code | meaning |", "| --- | --- | --- |"]
    lines += [f"| `{name}` | {reason.code:#04x} | {reason.meaning} |" for name, reason in REASON_BY_NAME.items()]
    return "\n".join(lines) + "\n"
