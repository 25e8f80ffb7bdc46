"""A runner without machines, for tests of the front ends: what a scenario file says comes out, with evidence files.

A file reads `scenario`, `title`, and optionally `tags`, `variants`, `proofs`, `skip` and `blocked` (see
example_run.Writer), `raises` (an InfraError in the runner), `crash` (a bug), `wrong` (a diagnostic), `unused` (a
remark), `interrupt`, `dies` (a signal that the process gets), `exits` (its exit status) or `meets` (the scenario that
must have begun before this one ends). `machine` are words by which its machine differs from others'; that of a counter-
proof has the proof's name. Each leaves its process id below `begun/`.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import yaml
from example_run import Writer

from harness.errors import InfraError
from harness.evidence import RunDirectory
from harness.machine.spec import MachineSpec
from harness.result import Progress
from harness.source.diagnostics import Diagnostic, InputError
from harness.verdict import CounterProof
from harness.waiting import Deadline, wait_for, wait_until

KERNEL = Path(__file__)


@dataclass(frozen=True)
class FakePlan:
    scenario: str
    variant: str
    title: str
    tags: tuple[str, ...]
    source: str
    line: int
    counter_proofs: tuple[str, ...]
    skip: str | None
    given: dict
    start: str
    machine: MachineSpec

    def without(self, protection):
        return replace(self, machine=replace(self.machine, kernel_args=(protection,)))

    @property
    def id(self):
        return f"{self.scenario}[{self.variant}]" if self.variant else self.scenario

    @property
    def node(self):
        return f"{self.source}::{self.id}"


class FakeHost:
    """A host with places for `VTD_GUESTS` fake guests; one that arrives in a worker brings the fakes along."""

    def __init__(self):
        self.slots = SimpleNamespace(count=int(os.environ.get("VTD_GUESTS", "1")), reason="as the test says")
        self.progress = print

    def telling(self, progress):
        install()
        other = FakeHost()
        other.progress = progress
        return other

    def describe(self):
        return {"qemu": "10.0.2", "qemu_digest": "ab", "accelerator": "tcg", "accelerator_reason": "no /dev/kvm"}

    def image(self, name):
        return SimpleNamespace(name=name, kernel_release="6.12.57", digest="cd", kernel=KERNEL, initrd=KERNEL)


def open_host(progress, **_there):
    progress("looking at QEMU")
    return FakeHost().telling(progress)


def plan_all(paths, host, *, cold=False, remark=None):
    problems, plans = [], []
    for path in paths:
        given = yaml.safe_load(Path(path).read_text())
        if "wrong" in given:
            problems.append(Diagnostic(str(path), 1, 1, 8, given["wrong"], "did you mean 'right'?", "scenario: x"))
            continue
        if "unused" in given and remark:
            remark(Diagnostic(str(path), 1, 1, 8, given["unused"], None, "scenario: x", kind="remark"))
        plans += [
            FakePlan(
                given["scenario"],
                variant,
                given["title"],
                tuple(given.get("tags", ())),
                str(path),
                1,
                tuple(given.get("proofs", ())),
                given.get("skip"),
                given,
                "cold" if cold else "template",
                MachineSpec(image="debian-13", kernel_args=tuple(given.get("machine", ()))),
            )
            for variant in given.get("variants", [""])
        ]
    if problems:
        raise InputError(problems)
    return plans


def run_plan(plan, directory, host, *, prove, progress):
    progress(Progress(plan.id, "booting"))
    host.progress(f"template {plan.id}: booting")
    Path("begun").mkdir(exist_ok=True)
    begun = Path("begun", plan.id)
    if "meets" in plan.given:
        met = Path("begun", plan.given["meets"])
        try:
            begun.write_text(str(os.getpid()))  # an interrupt may follow it at once
            wait_for(f"{met} to begin", met.exists, Deadline.after(20))
        except KeyboardInterrupt:
            # As long as a machine that is being stopped, and with as much to write down.
            wait_until(time.monotonic() + 0.5)
            directory.file("stopped").touch()
            raise
    else:
        begun.write_text(str(os.getpid()))
    if "dies" in plan.given:
        os.kill(os.getpid(), plan.given["dies"])
    if "exits" in plan.given:
        os.write(2, b"so it ends\n")
        os._exit(plan.given["exits"])
    if "raises" in plan.given:
        raise InfraError(plan.given["raises"])
    if "crash" in plan.given:
        raise ZeroDivisionError("a bug")
    if "interrupt" in plan.given:
        raise KeyboardInterrupt
    proofs = {name: CounterProof(proof) for name, proof in plan.given.get("proofs", {}).items()}
    return Writer(
        RunDirectory(directory.path.parents[1]),
        plan.scenario,
        plan.title,
        plan.variant,
        plan.tags,
        blocked=plan.given.get("blocked", "all"),
        proofs=proofs if prove else dict.fromkeys(proofs, CounterProof.NOT_RUN),
        skip=plan.skip,
        start=plan.start,
    ).write()


def install(setattr_=setattr):
    """Put the fakes in place of the real plan and runner."""
    from harness import equipment, plan, runner

    setattr_(plan, "plan_all", plan_all)
    setattr_(runner, "open_host", open_host)
    setattr_(equipment, "open_host", open_host)
    setattr_(runner, "run_plan", run_plan)
