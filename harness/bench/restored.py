"""A guest restored from a template, as a scenario gets it but without one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path

from harness.evidence import VariantDirectory
from harness.guest import Guest
from harness.machine.spec import MachineSpec
from harness.runner import HostFacts, started_machine


@contextmanager
def restored(host: HostFacts, spec: MachineSpec, path: Path) -> Iterator[Guest]:
    """Restore the machine of `spec` and let it run; `path` is made for its files, and removed in the end.

    The template is made first if it is not there. No place for a guest is taken: the guests of a benchmark wait for
    what is asked of them and leave the cores alone.
    """
    path.mkdir(parents=True)
    directory = VariantDirectory(path)
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, path)
        journal = stack.enter_context(directory.journal())
        machine = stack.enter_context(started_machine(spec, directory, host, journal, cold=False, place=nullcontext()))
        yield stack.enter_context(Guest.boot(machine))
