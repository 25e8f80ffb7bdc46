"""Brings the witnesses into the journal: the guest's log, its console, and QEMU's trace, step by step.

Each step stands between two markers in the guest's log, with a nonce that no other step has. What the witnesses say
between the markers belongs to the step, and a step whose markers the log does not hold is not believed.
"""

from __future__ import annotations

import contextlib
import secrets
from collections import Counter
from dataclasses import dataclass

from harness.errors import WaitTimeout
from harness.evidence import Entry
from harness.raw_record import FAULT_LINE
from harness.session import Session
from harness.testimony import fault_data
from harness.vtd.invalidation import Descriptor, DescriptorType
from harness.waiting import Deadline, wait_for
from harness.witnesses.guest_log import kernel_lines, logged_faults
from harness.witnesses.host_trace import (
    FAULT_DISABLED,
    WATCHED,
    config_write,
    descriptor,
    dmar_fault,
    folded,
    function_reset,
    read_trace,
    recorded_fault,
    remapped_message,
    translation,
)

#: Seconds for a fault that QEMU traced to show in the guest's log: an interrupt and a printk.
_LOGGED_S = 3.0

#: Seconds for a line that is in the guest's log to get through its serial port.
_CONSOLE_S = 5.0

#: That of the kernel's fault lines (pr_err): a console that shows those shows markers, too. On the console of a machine
#: on a lab host is nothing less than a warning.
_MARKER_LEVEL = 3


@dataclass(frozen=True, slots=True)
class _New:
    """New lines of QEMU's trace: refusals that the guest must hear of, and those that reached the fault record."""

    faults: int
    recorded: int


@dataclass(slots=True)
class Recorder:
    """Reads each witness from where it was read last; `session` is the machine they watch."""

    session: Session
    _trace_offset: int = 0
    _surprised: bool = False
    _console_lines: int = 0

    def begin(self, label: str) -> str:
        """Record what came before, mark the begin of `label` in the guest's log, and return the marker.

        Once a fault came that no step had provoked, more of them may come in any step: each waits until the guest's log
        has room for one.
        """
        if self._surprised:
            self.session.await_room()
        self.collect()
        self._mark_others(f"{label} begin")
        return self._mark(f"{label} begin")

    def end(self, label: str) -> str:
        """Mark the end of `label` in the guest's log, record what the witnesses saw, and return the marker."""
        traced = self._record_trace()
        if traced.faults:
            self._await_logged()
        self._mark_others(f"{label} end")
        marker = self._mark(f"{label} end")
        self._record_log()
        self._record_console(marker)
        self._book(traced.recorded + self._record_trace().recorded)
        return marker

    def collect(self) -> list[Entry]:
        """Record everything that the witnesses have seen by now, and return the lines of the guest's log."""
        self._book(self._record_trace().recorded)
        return self._record_log()

    def _book(self, recorded: int) -> None:
        """Book the faults that reached the unit's fault record, which is what the guest's kernel is told of."""
        if self.session.allowance.saw(recorded):
            self._surprised = True

    def watch(self) -> None:
        """Switch QEMU's trace of faults on, and record that it is."""
        self.session.watch(WATCHED)

    def _mark_others(self, text: str) -> None:
        """Read the log of each nested guest, and that of a lab host, up to a marker of its own."""
        for nested in self.session.nested.values():
            nested.mark(text)
        if self.session.host_log is not None:
            self.session.host_log.mark(text)

    def _mark(self, text: str) -> str:
        marker = f"{text} {secrets.token_hex(4)}"
        self.session.call("mark", text=marker, level=_MARKER_LEVEL)
        return marker

    def _record_trace(self) -> _New:
        """Record new trace lines, runs of alike faults folded into one."""
        texts, self._trace_offset = self.session.guest.machine.trace_lines(self._trace_offset)
        lines, unknown = read_trace(texts)
        journal = self.session.journal
        for text in unknown:
            journal.record("trace", "unread", text=text)
        faults = [(line, fault) for line in lines if (fault := dmar_fault(line)) is not None]
        for line, fault in folded(faults):
            journal.record("trace", "fault", t=line.t, **fault_data(fault))
        translations = [*filter(None, map(translation, lines))]
        lifted = Counter(seen.source for seen in translations if seen.lifted)
        for source, count in Counter(seen.source for seen in translations).items():
            journal.record("trace", "translated", source_id=str(source), count=count, lifted=lifted[source])
        told = 0
        for line in lines:
            taken = descriptor(line)
            if taken is not None and Descriptor(taken).type != DescriptorType.WAIT:
                journal.record("trace", "descriptor", t=line.t, raw=f"{taken:#x}")
            remapped = remapped_message(line)
            if remapped is not None:
                journal.record("trace", "remapped", t=line.t, request=remapped[0], message=remapped[1])
            written, number = config_write(line), function_reset(line)
            if written is not None:
                data = {"source_id": str(written.function), "offset": written.offset, "value": written.value}
                journal.record("trace", "config-write", t=line.t, **data)
            if number is not None:
                journal.record("trace", "function-reset", t=line.t, number=number)
            recorded = recorded_fault(line)
            if recorded is not None:
                told += 1
                source, reason = recorded
                journal.record("trace", "recorded", t=line.t, source_id=str(source), reason=reason, text=line.text)
            elif line.event == FAULT_DISABLED:
                journal.record("trace", "disabled", t=line.t, text=line.text)
        # A refused interrupt is recorded without a line of its own.
        return _New(faults=len(faults) or told, recorded=told)

    def _record_log(self) -> list[Entry]:
        return self.session.read_log()

    def _await_logged(self) -> None:
        """Wait for the first fault line after a traced fault; that none comes is for the judge to say."""

        def seen() -> bool:
            return any(True for _ in logged_faults(kernel_lines(self._record_log(), "kmsg")))

        with contextlib.suppress(WaitTimeout):
            wait_for(
                "the fault in the guest's log", seen, Deadline.after(_LOGGED_S), abort=[self.session.abort], every_s=0.1
            )

    def _record_console(self, marker: str) -> None:
        """Record the fault lines that the serial console showed up to `marker`, and `unmarked` if it did not show that.

        The judge holds the lines against those of the log, so that one which came too late is missed there.
        """
        path = self.session.guest.machine.console.path

        def text() -> str:
            return path.read_text(encoding="utf-8", errors="replace")

        try:
            shown = Deadline.after(_CONSOLE_S)
            wait_for("the marker on the console", lambda: marker in text(), shown, abort=[self.session.abort])
        except WaitTimeout:
            self.session.journal.record("console", "unmarked", marker=marker)
        lines = text().splitlines()
        for number, line in enumerate(lines[self._console_lines :], start=self._console_lines + 1):
            if FAULT_LINE.search(line):
                self.session.journal.record("console", "line", number=number, text=line)
        self._console_lines = len(lines)
