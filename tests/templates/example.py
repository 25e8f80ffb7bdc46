"""Templates of nothing: made in no time, and stored like any other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.evidence import VariantDirectory, write_json
from harness.machine.properties import Property, QemuFacts
from harness.machine.spec import MachineSpec
from harness.machine.template import RAM, STATE
from harness.templates.making import RECORD, Ingredients, Slot, digest


@dataclass(frozen=True, kw_only=True)
class Qemu:
    argv_prefix: tuple[str, ...] = ("/cache/qemu/qemu",)
    env: dict[str, str] = field(default_factory=dict)
    version: str = "10.0.2"
    digest: str = "sha256:0"


@dataclass(frozen=True, kw_only=True)
class Image:
    name: str = "debian-13"
    digest: str = "sha256:1"
    kernel: Path = Path("/cache/images/debian-13/kernel")
    initrd: Path = Path("/cache/images/debian-13/initrd")
    disks: Mapping[str, Path] = field(default_factory=dict)


OFFERED = {
    "caching-mode": Property("bool", default=False),
    "intremap": Property("OnOffAuto", "auto"),
    "aw-bits": Property("uint8", 48),
}
FACTS = QemuFacts("10.0.2", frozenset({"intel-iommu"}), {"intel-iommu": OFFERED})

#: What a template takes on disk, besides some KiB; its memory is larger, and most of it a hole.
TAKEN = 1 << 20


def ingredients(*, qemu: Qemu | None = None, image: Image | None = None, **machine: Any) -> Ingredients:
    return Ingredients(
        spec=MachineSpec(**{"image": "debian-13", "kernel_args": ("intel_iommu=on",), **machine}),
        qemu=qemu or Qemu(),
        facts=FACTS,
        image=image or Image(),
    )


def make(what: Ingredients, directory: Path, evidence: VariantDirectory, slot: Slot) -> float:
    """Do as `harness.templates.making.make` does, without a machine."""
    ram, state = directory / RAM, directory / STATE
    with slot(), ram.open("wb") as file:
        file.truncate(4 * TAKEN)
        file.seek(TAKEN)
        file.write(what.key().encode().ljust(64, b".") * (TAKEN // 64))
    state.write_bytes(b"state" * 1000)
    files = {RAM: digest(ram), STATE: digest(state)}
    told = {"host_public": "ssh-ed25519 AAAA", "greeting": b"SSH-2.0-x\r\n".hex()}
    write_json(directory / RECORD, {"key": what.key(), "name": what.name, **told, "files": files})
    evidence.file("console.log").write_text("booted\n", encoding="utf-8")
    return 0.5
