"""Runs a plan on a real machine and leaves its evidence: the only stage with effects.

Whatever goes wrong is journalled and judged; nothing is decided here.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Protocol

from harness.address_book import AddressBook
from harness.bare.running import BareRole, BareWitnesses, bare_session
from harness.bare.session import BareSession
from harness.catalog import scenario_of, steps_of
from harness.equipment import HostFacts, open_host
from harness.errors import HarnessError, LaunchError, StorageError
from harness.evidence import Entry, Journal, VariantDirectory
from harness.guest import Guest
from harness.host.kvm_findings import is_kvms, kvm_words
from harness.judge import judge_variant
from harness.lab.host import LabHost
from harness.lab.host_log import heard
from harness.lab.lending import lent
from harness.lockfile import exclusive
from harness.machine.launch import CONSOLE, STDERR, TRACE, Machine
from harness.machine.outgrown import outgrown
from harness.machine.properties import resolve_all
from harness.machine.spec import MachineSpec
from harness.nested.guest import NestedGuest
from harness.nested.machine import start_on
from harness.nested.platform import Platform
from harness.nesting import bridge
from harness.plan import Plan
from harness.recorder import Recorder
from harness.result import Progress, Result, Watcher, summarise
from harness.scenario.model import Scenario
from harness.session import AttachedDevice, Session
from harness.storage import LEFT, require_room
from harness.templates.making import Ingredients
from harness.verdict import Outcome
from harness.vtd.source_id import SourceId

#: In a variant's directory: the files of the boot that its template was made from, if this run made it.
TEMPLATE_BOOT = "template"

__all__ = ["HostFacts", "open_host", "run_plan", "running", "running_bare", "started_machine"]


def run_plan(plan: Plan, directory: VariantDirectory, host: HostFacts, *, prove: bool, progress: Watcher) -> Result:
    """Run one variant, with `prove` its counter-proofs too, and judge it by what was recorded."""
    begun = time.monotonic()
    plan = accelerated(replace(plan, prove=prove), host)
    _execute(plan, directory, host, progress)
    if prove and plan.skip is None:
        for protection in plan.counter_proofs:
            bare = accelerated(plan.without(protection), host)
            _execute(bare, directory.counter(protection), host, progress)
    verdict = judge_variant(directory)
    directory.write_json("verdict.json", verdict)
    result = Result(
        id=plan.id,
        scenario=plan.scenario,
        variant=plan.variant,
        title=plan.title,
        tags=plan.tags,
        outcome=verdict.outcome,
        reason=verdict.reason,
        duration_s=round(time.monotonic() - begun, 3),
        start=plan.start,
        witnesses=summarise(verdict.witnesses),
        counter_proofs=verdict.counter_proofs,
        evidence=str(directory.path.relative_to(directory.path.parents[1])),
    )
    progress(Progress(plan.id, "done", verdict.outcome))
    return result


def accelerated(plan: Plan, host: HostFacts) -> Plan:
    """Give `plan` with the accelerator that its machine can have on `host` now; see `HostFacts.accelerated`."""
    if plan.skip is not None or plan.refused is not None:
        return plan
    return replace(plan, machine=host.accelerated(plan.machine, nests=bool(plan.guests)))


def _execute(plan: Plan, directory: VariantDirectory, host: HostFacts, progress: Watcher) -> None:
    """Run the steps of one plan, or let QEMU refuse its machine; every error of ours ends up in the journal."""
    directory.write_text("scenario.yaml", plan.text)
    directory.write_json("plan.json", plan)
    if plan.skip is not None:
        progress(Progress(plan.id, "skipped", Outcome.SKIP))
        return
    with directory.journal() as journal:
        journal.record("runner", "begin", id=plan.id, protection_removed=plan.protection_removed)
        try:
            if plan.refused is not None:
                _let_refuse(plan, directory, host, journal)
            elif plan.machine.kind == "bare":
                _run_bare(plan, directory, host, journal, progress)
            else:
                _run_steps(plan, directory, host, journal, progress)
        except HarnessError as error:
            message = f"{type(error).__name__}: {error.message}"
            journal.record("runner", "error", type=type(error).__name__, message=message, detail=str(error))
            if plan.machine.accelerator == "kvm" and is_kvms(error):
                host.distrust(plan.machine, kvm_words(error), nests=bool(plan.guests))
            if isinstance(error, StorageError) and error.path.is_relative_to(directory.path):
                raise  # nor can the evidence of what comes next
        journal.step = None
        # Not reached by a run that is interrupted or ended by a bug: without it the judge takes the run as cut off.
        journal.record("runner", "end")


def _let_refuse(plan: Plan, directory: VariantDirectory, host: HostFacts, journal: Journal) -> None:
    begun = time.monotonic()
    try:
        with _lab_of(plan, host, journal) as lab, _started(plan, directory, host, journal, lab):
            journal.record("runner", "started")
    except LaunchError as error:
        after_s = round(time.monotonic() - begun, 2)
        journal.record("runner", "refused", exit_status=error.exit_status, stderr=error.stderr, after_s=after_s)


class _Running(Protocol):
    """A session on a machine; `abort` tells that this goes on no more."""

    def abort(self) -> Exception | None: ...


class _Witnesses(Protocol):
    """What brings the witnesses of a step into the journal; `begin` and `end` give a marker."""

    def begin(self, label: str) -> str: ...

    def end(self, label: str) -> str: ...


def _run_bare(plan: Plan, directory: VariantDirectory, host: HostFacts, journal: Journal, progress: Watcher) -> None:
    progress(Progress(plan.id, f"{_where(plan)}starting"))
    with host.guest_place(), running_bare(plan, directory, host, journal) as session:
        _each_step(plan, session, BareWitnesses(session), journal, progress)
        session.trace()
        journal.record("runner", "collected")


@contextlib.contextmanager
def running_bare(plan: Plan, directory: VariantDirectory, host: HostFacts, journal: Journal) -> Iterator[BareSession]:
    """Start the bare machine of `plan` and give the session on it; the machine is stopped when the context ends."""
    roles = [BareRole(device.name, device.model, device.qdev) for device in plan.devices]
    unbroken = plan.protection_removed == "unbroken"
    with bare_session(
        plan.machine,
        roles,
        qemu=host.qemu,
        facts=host.facts,
        directory=directory,
        journal=journal,
        unbroken=unbroken,
    ) as session:
        yield session


def _where(plan: Plan) -> str:
    return f"without {plan.protection_removed}: " if plan.protection_removed else ""


def _each_step(plan: Plan, session: _Running, witnesses: _Witnesses, journal: Journal, progress: Watcher) -> None:
    scenario = scenario_of(plan.definition)
    for step, planned in zip(scenario.steps, plan.steps, strict=True):
        label = f"step {planned.index + 1}"
        progress(Progress(plan.id, f"{_where(plan)}{label}/{len(plan.steps)} {planned.text}"))
        marker = witnesses.begin(label)
        begun = time.monotonic()
        journal.step = planned.index
        journal.record(
            "runner", "step-begin", marker=marker, keyword=planned.keyword, line=planned.line, text=planned.text
        )
        step.run(session)
        marker = witnesses.end(label)
        # A machine that stood still or began anew meanwhile has answered all the same, and what it told is of no use.
        if not step.ends_machine and (error := session.abort()) is not None:
            raise error
        # QEMU does not tell of a line that it could not write.
        flooded = outgrown([journal.path.with_name(name) for name in (CONSOLE, TRACE, STDERR)])
        if flooded is not None:
            raise flooded
        require_room(journal.path, LEFT, "the evidence of QEMU")
        journal.record("runner", "step-end", marker=marker, duration_s=round(time.monotonic() - begun, 3))
        journal.step = None


def _run_steps(plan: Plan, directory: VariantDirectory, host: HostFacts, journal: Journal, progress: Watcher) -> None:
    scenario = scenario_of(plan.definition)
    starting = Progress(plan.id, f"{_where(plan)}{'booting' if plan.start == 'cold' else 'restoring'}")
    progress(starting)
    # Said again once the machine has its place, because what it waited for has been told in between.
    with running(plan, directory, host, journal, started=lambda: progress(starting)) as session:
        recorder = Recorder(session)
        session.boot_log = recorder.collect()
        recorder.watch()
        _plug_devices(plan, scenario, session)
        _each_step(plan, session, recorder, journal, progress)
        recorder.collect()
        journal.record("runner", "collected")


@contextlib.contextmanager
def running(
    plan: Plan,
    directory: VariantDirectory,
    host: HostFacts,
    journal: Journal,
    *,
    started: Callable[[], None] = lambda: None,
) -> Iterator[Session]:
    """Bring up the machine of `plan` and give the session on it; the machine is stopped when the context ends.

    `started` is called when QEMU runs and the guest is let go.
    """
    with ExitStack() as stack:
        lab = stack.enter_context(_lab_of(plan, host, journal))
        handed = lab is not None and any(device.host_address for device in plan.devices)
        log = stack.enter_context(heard(lab.ssh, journal)) if lab and handed else None
        machine = stack.enter_context(_started(plan, directory, host, journal, lab))
        started()
        guest = stack.enter_context(Guest.boot(machine))
        unbroken = plan.protection_removed in ("unbroken", "intremap_off")
        raw = plan.protection_removed is not None and not unbroken
        book = AddressBook(translated=not raw)
        session = Session(guest, journal, machine.wires, raw=raw, unbroken=unbroken, book=book)
        session.host_log = log
        session.beyond = max((planned.machine.memory_mib << 20 for planned in plan.guests), default=0)
        if plan.guests and not raw:
            session.hosting = _hosting(plan, session, directory, host)
            stack.callback(_end_guests, session)
        journal.subscribe(lambda entry: _hear(session, entry))
        stack.callback(session.heal)
        stack.enter_context(machine.explaining())
        yield session


def _end_guests(session: Session) -> None:
    """End the nested guests that still run, the last one first."""
    while session.nested:
        _, nested = session.nested.popitem()
        nested.end()


def _hosting(
    plan: Plan, session: Session, directory: VariantDirectory, host: HostFacts
) -> Callable[[str], NestedGuest]:
    """Make the guest of `session` a platform, and give what starts the guests of the plan on it."""
    platform = Platform.open(session.guest, host.platform_disk())
    session.journal.record("runner", "platform", virtualization=platform.virtualization, qemu=platform.qemu.version)
    guests = {planned.name: planned for planned in plan.guests}

    def start(name: str) -> NestedGuest:
        planned = guests[name]
        image = platform.image(host.image(planned.machine.image))
        for nic in planned.nics:
            bridge(session, session.device(nic.via), nic.bridge)
        return NestedGuest.start(
            name, planned.machine, image, platform, directory=directory, journal=session.journal, nics=planned.nics
        )

    return start


def _hear(session: Session, entry: Entry) -> None:
    """Let a step that waits for the guest to listen on a NIC go on."""
    if (entry.source, entry.kind) == ("agent", "traffic"):
        session.listening.set()


@contextlib.contextmanager
def _lab_of(plan: Plan, host: HostFacts, journal: Journal) -> Iterator[LabHost | None]:
    """Connect to the lab host, if the machine is to run there, and have it hand out the NICs of the plan.

    What comes after is ended by then, QEMU first of all: only then is a NIC given back.
    """
    if host.lab is None:
        yield None
        return
    nics = [device.host_address for device in plan.devices if device.host_address]
    with ExitStack() as stack:
        for address in sorted(nics):
            lock = host.lab.slots.locks / f"nic-{address}.lock"
            stack.enter_context(exclusive(lock, f"NIC {address} of the lab host", host.progress))
        lab = stack.enter_context(host.lab.opened(host.progress))
        journal.record("lab", "host", name=host.lab.name, kernel=host.lab.survey.kernel)
        stack.enter_context(lent(lab.ssh, nics, journal))
        yield lab


@contextlib.contextmanager
def _started_there(
    plan: Plan, directory: VariantDirectory, host: HostFacts, journal: Journal, lab: LabHost
) -> Iterator[Machine]:
    image = lab.image(host.image(plan.machine.image))
    iommus = resolve_all(plan.machine.iommus, host.facts)
    with (
        host.guest_place(),
        start_on(lab, plan.machine, image=image, directory=directory, journal=journal, iommus=iommus) as machine,
    ):
        yield machine


def _started(
    plan: Plan, directory: VariantDirectory, host: HostFacts, journal: Journal, lab: LabHost | None
) -> contextlib.AbstractContextManager[Machine]:
    if lab is not None:
        return _started_there(plan, directory, host, journal, lab)
    return started_machine(
        plan.machine,
        directory,
        host,
        journal,
        cold=plan.start == "cold",
        place=host.guest_place(),
        own_memory=any(step.acts_from_outside for step in steps_of(plan.definition)),
    )


@contextlib.contextmanager
def started_machine(
    spec: MachineSpec,
    directory: VariantDirectory,
    host: HostFacts,
    journal: Journal,
    *,
    cold: bool,
    place: contextlib.AbstractContextManager[None],
    own_memory: bool = False,
) -> Iterator[Machine]:
    """Start the machine of `spec`, halted, and stop it when the context ends; unless `cold` it is from a template.

    `place` is held while it runs. A template is waited for without holding it, and held on to until the machine has
    mapped it. With `own_memory` its memory and registers can be written from outside.
    """
    image = host.boot_image(spec)
    ingredients = Ingredients(spec=spec, qemu=host.qemu, facts=host.facts, image=image)
    with ExitStack() as stack:
        with ExitStack() as starting:
            template = None
            if not cold:
                boot = directory.path / TEMPLATE_BOOT
                template = starting.enter_context(
                    host.templates.ready(ingredients, boot, host.progress, host.guest_place)
                )
            stack.enter_context(place)
            machine = stack.enter_context(
                Machine.start(
                    spec,
                    qemu=host.qemu,
                    facts=host.facts,
                    image=image,
                    directory=directory,
                    journal=journal,
                    template=template,
                    own_memory=own_memory,
                )
            )
        yield machine


def _plug_devices(plan: Plan, scenario: Scenario, session: Session) -> None:
    for planned in plan.devices:
        model = scenario.devices[planned.name]
        device = AttachedDevice(
            name=planned.name,
            model=planned.model,
            slot=planned.slot,
            qdev=planned.qdev,
            engine=model.engine,
            kernel_driver=model.kernel_driver,
            wire=planned.wire,
            behind_bridge=planned.behind_bridge,
            physical=planned.physical,
            driven_as=model.driven_as,
            at_host=SourceId.parse(planned.host_address) if planned.host_address else None,
        )
        session.devices[planned.name] = device
        if planned.plugged and not planned.physical:
            session.plug(device)
    for physical in dict.fromkeys(planned.physical for planned in plan.devices if planned.physical):
        functions = [planned for planned in plan.devices if planned.physical == physical]
        session.make_functions(session.device(physical), {planned.name: str(planned.mac) for planned in functions})
