"""How much memory one more guest takes: Pss, in which pages shared by n processes count an n-th for each."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from harness.bench.figures import Figure, slope
from harness.bench.restored import restored
from harness.bench.setting import Setting
from harness.errors import InfraError


def pss_mib_per_guest(setting: Setting) -> Figure:
    """Restore one guest after the other from the same template; the slope of the Pss of all their QEMUs."""
    spec, home = setting.subject().machine, setting.directory("memory")
    totals: list[float] = []
    with ExitStack() as stack:
        processes: list[int] = []
        for number in range(1, setting.guests + 1):
            guest = stack.enter_context(restored(setting.host, spec, home / f"guest-{number}"))
            processes.append(guest.machine.process.pid)
            totals.append(sum(map(pss_mib, processes)))
            setting.tell(f"{number} of {setting.guests} guests: {totals[-1]:.0f} MiB")
    points = [(float(number), total) for number, total in enumerate(totals, start=1)]
    samples = {f"{number}_guests_mib": [total] for number, total in enumerate(totals, start=1)}
    return Figure(value=slope(points), samples=samples)


def pss_mib(process: int) -> float:
    """Give the Pss of `process` in MiB (proc_pid_smaps_rollup(5)); InfraError if the kernel does not tell."""
    try:
        text = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="ascii")
    except OSError as error:
        raise InfraError(f"the memory of process {process} cannot be read: {error}") from error
    for line in text.splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise InfraError(f"/proc/{process}/smaps_rollup has no Pss")
