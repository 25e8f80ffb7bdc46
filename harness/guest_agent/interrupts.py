"""The interrupt messages of a function as the kernel counts them, from /proc/interrupts and sysfs."""

from __future__ import annotations

import os
from typing import Any

from pci import present
from protocol import Operation
from system import read_text


def lines_of(table: str, numbers: set[str]) -> list[dict[str, Any]]:
    """The lines of /proc/interrupts, whose text is `table`, that tell of the interrupts with these `numbers`.

    In their order; `count` is the sum over all CPUs, `chip` the name of the interrupt chip, `name` those of its
    handlers (show_interrupts in kernel/irq/proc.c).
    """
    cpus = len(table.splitlines()[0].split()) if table else 0
    found = []
    for line in table.splitlines()[1:]:
        number, _, rest = line.partition(":")
        fields = rest.split()
        if number.strip() in numbers and len(fields) > cpus:
            counts = [int(field) for field in fields[:cpus]]
            name = " ".join(fields[cpus + 2 :])
            found.append({"irq": int(number), "count": sum(counts), "chip": fields[cpus], "name": name})
    return found


class Interrupts:
    """Operation `interrupts`."""

    def operations(self) -> dict[str, Operation]:
        """Operations by name."""
        return {"interrupts": self.interrupts}

    def interrupts(self, *, bdf: str) -> dict[str, Any]:
        """Each interrupt message that the kernel has given `bdf`: its number, how often it came, and its chip."""
        path = f"{present(bdf)}/msi_irqs"
        numbers = set(os.listdir(path)) if os.path.isdir(path) else set()
        return {"interrupts": lines_of(read_text("/proc/interrupts"), numbers)}
