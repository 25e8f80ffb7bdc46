"""kill: kill a nested guest's QEMU while its NIC writes, and show that it writes no more."""

from __future__ import annotations

import secrets
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from pydantic import Field

from harness.judgement import Judgement, StepEvidence, nobody_faulted, single
from harness.nesting import end_guest
from harness.scenario.section import Section
from harness.scenario.step import Reference, Step
from harness.scenario.values import Name
from harness.session import AttachedDevice, Session
from harness.traffic import counting_translations
from harness.verdict import Finding, Outcome, Witness, WitnessVerdict
from harness.waiting import Deadline, wait_for
from harness.wire import TRAFFIC_HEADER, Wire
from harness.witnesses.host_trace import TRANSLATED, read_trace, translation

#: Seconds for the NIC to be seen writing, and translations that must be seen before the kill.
_IN_FLIGHT_S, _IN_FLIGHT = 20.0, 50

#: Frames that the NIC is offered once its guest is gone, and the most pages, of 4 KiB or 2 MiB, that are searched for
#: Each page is read while the NIC writes, and again once its guest is gone.
_READINGS = 2

#: what they carry.
_FRAMES_AFTER, _PAGES = 200, 64


class KillBody(Section):
    """Which guest, and the NIC that is busy."""

    guest: Name = Field(description="The guest whose QEMU is killed.")
    device: Name = Field(description="A NIC that it was handed and that is up, so that it receives.")


class Kill(Step, keyword="kill"):
    """Flood a NIC that a nested guest was handed, kill the guest's QEMU meanwhile, and go on flooding.

    The NIC was writing: QEMU's trace of translations tells where to, and the frames stand there. Once nothing of the
    guest's QEMU is left it must not write any more: no DMA of it is translated or faults, and the frames sent after the
    end, which carry a word of their own, stand in none of the pages that it wrote to before.
    """

    kill: KillBody

    def summary(self) -> str:
        """Say in a line what is done."""
        return f"kill guest '{self.kill.guest}' while '{self.kill.device}' writes"

    def references(self) -> list[Reference]:
        """Name the guest and the NIC."""
        return [
            Reference.use("guest", self.kill.guest, "kill", "guest"),
            Reference.use("device", self.kill.device, "kill", "device"),
        ]

    def needs_handed(self) -> list[tuple[str, str]]:
        """The NIC is the guest's."""
        return [(self.kill.device, self.kill.guest)]

    def stops_guests(self) -> tuple[str, ...]:
        """The guest does not run any more."""
        return (self.kill.guest,)

    def run(self, session: Session) -> None:
        """Flood, kill, flood on; record where the NIC wrote before, whether it still did, and what stands there."""
        if session.raw:
            return
        device = session.device(self.kill.device)
        wire = session.wire(device)
        with counting_translations(session):
            since = session.guest.machine.trace_lines()[1]
            word_before = secrets.token_bytes(16)
            with _flooding(wire, TRAFFIC_HEADER + word_before * 40):
                wait_for(
                    f"'{device.name}' to write",
                    lambda: len(_pages(session, device, since)) >= _IN_FLIGHT,
                    Deadline.after(_IN_FLIGHT_S),
                    abort=[session.abort],
                    every_s=0.1,
                )
                before = _pages(session, device, since)
                searched = list(dict.fromkeys(before))[-_PAGES:]
                written = _holding(session, searched, word_before)
                end_guest(session, self.kill.guest, kill=True)
            since = session.guest.machine.trace_lines()[1]
            word = secrets.token_bytes(16)
            for _ in range(_FRAMES_AFTER):
                wire.offer(TRAFFIC_HEADER + word * 40)
            session.call("hello")  # the platform still runs, and QEMU has taken what was sent
            after = _pages(session, device, since)
        stained = _holding(session, searched, word)
        session.record(
            "killed",
            device=device.name,
            source_id=str(device.source),
            before=len(before),
            after=len(after),
            pages=[page for page, _ in searched],
            written=written,
            stained=stained,
        )

    def judge(self, evidence: StepEvidence) -> Judgement:
        """The NIC wrote before, and neither wrote nor tried to afterwards."""
        seen = evidence.observation("killed")
        if seen is None:
            return single(Outcome.ERROR, f"guest '{self.kill.guest}' was not killed", evidence.index)
        data, step = seen.data, evidence.index
        if data["before"] < _IN_FLIGHT or not data["written"]:
            return single(Outcome.ERROR, f"'{data['device']}' was not seen writing before the end", step, seen.ref)
        watching = [entry for entry in evidence.entries if (entry.source, entry.kind) == ("trace", "watching")]
        if not any(TRANSLATED in entry.data["events"] for entry in watching):
            return single(Outcome.ERROR, "QEMU's trace of translations was not switched on", step, seen.ref)
        if not {*data["written"], *data["stained"]} <= set(data["pages"]):
            return single(Outcome.ERROR, "bytes were found in pages that were not read", step, seen.ref)
        read = Counter(entry.data["gpa"] for entry in evidence.entries if entry.source == "memory")
        if not data["pages"] or any(read[page] != _READINGS for page in data["pages"]):
            return single(Outcome.ERROR, "not every page that the NIC wrote to was read afterwards", step, seen.ref)
        silent = not data["after"]
        quiet = Witness(
            name="translation",
            step=step,
            verdict=WitnessVerdict.CONFIRMS if silent else WitnessVerdict.DENIES,
            evidence=f"{data['before']} translated DMAs of {data['source_id']} before the end, {data['after']} after",
            refs=(seen.ref,),
        )
        clean = Witness(
            name="bytes",
            step=step,
            verdict=WitnessVerdict.DENIES if data["stained"] else WitnessVerdict.CONFIRMS,
            evidence=f"frames sent after the end stand in {len(data['stained'])} of {len(data['pages'])} pages",
            refs=(seen.ref,),
        )
        others = nobody_faulted(evidence)
        witnesses = (quiet, clean, others)
        wrong = [witness for witness in witnesses if witness.verdict is not WitnessVerdict.CONFIRMS]
        text = wrong[0].evidence if wrong else f"'{data['device']}' wrote nothing once its guest was gone"
        outcome = Outcome.FAIL if wrong else Outcome.PASS
        finding = Finding(outcome=outcome, text=text, step=step, refs=(seen.ref,))
        return Judgement(findings=(finding,), witnesses=witnesses)


@contextmanager
def _flooding(wire: Wire, frame: bytes) -> Iterator[None]:
    """Send `frame` all the time; what comes back is nobody's."""
    enough = threading.Event()

    def flood() -> None:
        while not enough.wait(0.002):
            wire.offer(frame)

    thread = threading.Thread(target=flood, name="flood")
    thread.start()
    try:
        yield
    finally:
        enough.set()
        thread.join()


def _holding(session: Session, pages: Sequence[tuple[int, int]], word: bytes) -> list[int]:
    """Give those of `pages` in which `word` stands, read from outside."""
    label = "where the NIC writes"
    return [page for page, size in pages if word in session.read_physical(page, size, label=label)]


def _pages(session: Session, device: AttachedDevice, since: int) -> list[tuple[int, int]]:
    """Give the pages that DMA of `device` was translated to, with their sizes, by the trace from byte `since` on."""
    lines, _ = read_trace(session.guest.machine.trace_lines(since)[0])
    found = filter(None, map(translation, lines))
    return [(each.physical, each.size) for each in found if each.source == device.source]
