"""The scenario that is measured: a small one of the usual kind, in as many variants as it takes."""

from __future__ import annotations

from pathlib import Path

#: Variants in one file; a scenario's matrix may have 64.
_PER_FILE = 50

_TEXT = """\
scenario: bench-{number:02}
title: A device cannot write outside its protection domain
tags: [isolation, smoke]
matrix:
  steps.map.iova: [{addresses}]
devices:
  rogue: {{model: edu}}
steps:
  - assign: rogue
  - map: {{device: rogue, buffer: own, iova: 0x100000, size: 64KiB}}
  - dma: {{device: rogue, write: 64, to: own}}
    expect: landed
    note: the same device, the same command, a page its domain maps
  - plant: {{canary: victim, size: 4KiB}}
  - dma: {{device: rogue, write: 64, to: victim}}
    expect: {{blocked: {{reason: pte-write}}}}
  - dma: {{device: rogue, write: 64, to: own+0x1000}}
    expect: landed
    note: the device was refused, not broken
counter_proof: [iommu_off, passthrough, no_viommu]
"""


def write(directory: Path, *, variants: int) -> list[Path]:
    """Write files below `directory/scenarios` that hold `variants` variants together; give their paths."""
    home = directory / "scenarios"
    home.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, first in enumerate(range(0, variants, _PER_FILE)):
        addresses = ", ".join(f"{(1 + n) << 20:#x}" for n in range(min(_PER_FILE, variants - first)))
        path = home / f"bench-{number:02}.yaml"
        path.write_text(_TEXT.format(number=number, addresses=addresses), encoding="utf-8")
        paths.append(path)
    return paths
