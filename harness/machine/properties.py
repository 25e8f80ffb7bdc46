"""What the QEMU at hand offers, asked of QEMU itself, and the scenario's IOMMU options in that QEMU's words."""

from __future__ import annotations

import contextlib
import difflib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.errors import StorageError, Unsupported
from harness.evidence import write_json
from harness.machine.parts import QemuBinary
from harness.machine.spec import IommuSpec, OptionValue
from harness.storage import writing

IOMMU_DEVICE = "intel-iommu"

#: Devices whose properties are recorded; of all others it is only known whether they exist.
DESCRIBED = (IOMMU_DEVICE, "pcie-root-port", "pcie-pci-bridge", "edu", "igb", "e1000e", "virtio-net-pci")

#: Options whose QEMU property changed its name, newest first (facts: 10.0 has the x- names, 11.1 the plain ones).
SPELLINGS: Mapping[str, tuple[str, ...]] = {
    "scalable_mode": ("scalable-mode", "x-scalable-mode"),
    "first_stage": ("fsts", "flts", "x-flts"),
    "pasid_mode": ("x-pasid-mode",),
    "buggy_eim": ("x-buggy-eim",),
}

_UNSIGNED_BITS = {"uint8": 8, "uint16": 16, "uint32": 32, "uint64": 64, "size": 64}

_FORMAT = 2


@dataclass(frozen=True, slots=True)
class Property:
    """A device property: QOM `type` (`bool`, `OnOffAuto`, `uint8`, ...) and QEMU's default, None if it names none."""

    type: str
    default: Any = None


@dataclass(frozen=True, slots=True)
class QemuFacts:
    """Version (`10.0.2`), all device types, the properties of those in `DESCRIBED` that exist, and all CPU models."""

    version: str
    devices: frozenset[str]
    properties: Mapping[str, Mapping[str, Property]]
    cpus: frozenset[str] = frozenset()

    def offers(self, device: str) -> bool:
        """Whether QEMU has the device type `device`."""
        return device in self.devices


@dataclass(frozen=True, slots=True)
class PropertyProblem:
    """Why one IOMMU option cannot be given to this QEMU; `key` is the scenario's, `suggestion` a nearby key or None.

    `unsupported` tells an option that other QEMU versions have from one that no version has.
    """

    key: str
    why: str
    suggestion: str | None = None
    unsupported: bool = False


@dataclass(frozen=True, slots=True)
class Resolution:
    """The QEMU properties of one vIOMMU, and the options that did not become one."""

    properties: Mapping[str, Any]
    problems: tuple[PropertyProblem, ...]


def facts(qemu: QemuBinary, cache: Path) -> QemuFacts:
    """What `qemu` offers, from `cache` if this build was asked before; raises LaunchError or MonitorError."""
    stored = cache / f"qemu-facts-{_FORMAT}-{qemu.digest.replace(':', '-')}.json"
    try:
        return _from_json(json.loads(stored.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError):
        found = introspect(qemu)
    with contextlib.suppress(StorageError), writing("what QEMU offers", stored):  # it is then asked each time
        cache.mkdir(parents=True, exist_ok=True)
        write_json(stored, {**asdict(found), "devices": sorted(found.devices), "cpus": sorted(found.cpus)})
    return found


def introspect(qemu: QemuBinary) -> QemuFacts:
    """Run QEMU without a machine and ask it for its version, device types and properties."""
    from harness.machine.introspection import ask_qemu  # noqa: PLC0415 - asyncio takes long to import, and this is rare

    with ask_qemu(qemu) as monitor:
        version = monitor.execute("query-version")["qemu"]
        types = monitor.execute("qom-list-types", implements="device", abstract=False)
        devices = frozenset(entry["name"] for entry in types)
        described = {
            name: {
                entry["name"]: Property(entry["type"], entry.get("default-value"))
                for entry in monitor.execute("device-list-properties", typename=name)
            }
            for name in DESCRIBED
            if name in devices
        }
        cpus = frozenset(entry["name"] for entry in monitor.execute("query-cpu-definitions"))
    return QemuFacts(f"{version['major']}.{version['minor']}.{version['micro']}", devices, described, cpus)


def resolve(iommu: IommuSpec, qemu_facts: QemuFacts) -> Resolution:
    """The options of `iommu` as properties of this QEMU's intel-iommu; `on`/`off` become JSON booleans where due.

    A value that its property cannot hold is a problem, unless QEMU is to be given it as it is written.
    """
    offered = qemu_facts.properties.get(IOMMU_DEVICE, {})
    properties: dict[str, Any] = {}
    problems: list[PropertyProblem] = []
    for key, value in iommu.options.items():
        names = spellings(key)
        name = next((n for n in names if n in offered), None)
        if name is None:
            problems.append(_unknown(key, qemu_facts))
            continue
        try:
            properties[name] = convert(value, offered[name].type)
        except ValueError as error:
            if iommu.as_written:
                properties[name] = value
                continue
            problems.append(PropertyProblem(key, f"'{key}' {error}"))
    return Resolution(properties, tuple(problems))


def resolve_all(iommus: Iterable[IommuSpec], qemu_facts: QemuFacts) -> list[Mapping[str, Any]]:
    """The QEMU properties of each of `iommus`; Unsupported for the first option that this QEMU does not have."""
    resolutions = [resolve(iommu, qemu_facts) for iommu in iommus]
    for problem in (problem for resolution in resolutions for problem in resolution.problems):
        raise Unsupported(f"the IOMMU option '{problem.key}'", problem.why)
    return [resolution.properties for resolution in resolutions]


def spellings(key: str) -> tuple[str, ...]:
    """The QEMU property names that mean scenario option `key`, newest first."""
    plain = key.replace("_", "-")
    return SPELLINGS.get(key, (plain, f"x-{plain}"))


def option_names(qemu_facts: QemuFacts) -> list[str]:
    """The scenario options that this QEMU's intel-iommu understands."""
    offered = set(qemu_facts.properties.get(IOMMU_DEVICE, {}))
    names = {key for key, spelled in SPELLINGS.items() if offered & set(spelled)}
    taken = {name for key in names for name in SPELLINGS[key]}
    return sorted(names | {name.removeprefix("x-").replace("-", "_") for name in offered - taken})


def convert(value: OptionValue, kind: str) -> bool | int | str:
    """`value` as JSON for a property of QOM type `kind`; ValueError says what it must be instead."""
    text = ("on" if value else "off") if isinstance(value, bool) else value
    if kind == "bool":
        if text not in ("on", "off"):
            raise ValueError(f"must be on or off, not {value!r}")
        return text == "on"
    if kind == "OnOffAuto":
        if text not in ("on", "off", "auto"):
            raise ValueError(f"must be on, off or auto, not {value!r}")
        return str(text)
    if kind in _UNSIGNED_BITS:
        bits = _UNSIGNED_BITS[kind]
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << bits:
            raise ValueError(f"must be a number from 0 to {(1 << bits) - 1}, not {value!r}")
        return value
    if not isinstance(value, str):
        raise ValueError(f"must be text ({kind}), not {value!r}")
    return value


def _unknown(key: str, qemu_facts: QemuFacts) -> PropertyProblem:
    if key in SPELLINGS:
        return PropertyProblem(key, f"QEMU {qemu_facts.version} has no '{key}' on its {IOMMU_DEVICE}", unsupported=True)
    near = difflib.get_close_matches(key, option_names(qemu_facts), n=1)
    return PropertyProblem(
        key, f"'{key}' is not an option of {IOMMU_DEVICE} in QEMU {qemu_facts.version}", near[0] if near else None
    )


def _from_json(data: dict[str, Any]) -> QemuFacts:
    properties = {
        device: {name: Property(**entry) for name, entry in entries.items()}
        for device, entries in data["properties"].items()
    }
    return QemuFacts(data["version"], frozenset(data["devices"]), properties, frozenset(data["cpus"]))
