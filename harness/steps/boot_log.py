"""boot_log: hold the guest's log up to the first step to lines that its kernel must have said, or must not."""

from __future__ import annotations

from pydantic import Field

from harness.judgement import Judgement, StepEvidence, single
from harness.scenario.section import Section
from harness.scenario.step import Step
from harness.scenario.values import Words
from harness.session import Session
from harness.verdict import Finding, Outcome, Witness, WitnessVerdict
from harness.witnesses.kernel_log import from_kernel


class BootLogBody(Section):
    """Words of lines, each to be found as it stands."""

    says: tuple[Words, ...] = Field(default=(), description="Words, each of which a line of the log must contain.")
    never: tuple[Words, ...] = Field(default=(), description="Words that no line of the log may contain.")


class BootLog(Step, keyword="boot_log"):
    """Hold the kernel's log of the boot to what it must say of a machine; guest log and console must agree."""

    boot_log: BootLogBody

    def summary(self) -> str:
        """Say in a line what is done."""
        body = self.boot_log
        said = [f"says '{words}'" for words in body.says] + [f"never says '{words}'" for words in body.never]
        return f"the kernel {', '.join(said)}" if said else "the kernel booted"

    def run(self, session: Session) -> None:
        """Record each line of the guest's log, and of its console, that has any of the words."""
        words = (*self.boot_log.says, *self.boot_log.never)
        logged = [str(entry.data["text"]) for entry in session.boot_log if from_kernel(entry.data)]
        shown = session.guest.machine.console.path.read_text(encoding="utf-8", errors="replace").splitlines()
        session.record(
            "boot-log",
            lines=len(logged),
            logged=[line for line in logged if any(each in line for each in words)],
            console=[line for line in shown if any(each in line for each in words)],
        )

    def judge(self, evidence: StepEvidence) -> Judgement:
        """Compare log and console with what must be said."""
        seen = evidence.observation("boot-log")
        if seen is None or not seen.data["lines"]:
            return single(Outcome.ERROR, "the log of the boot was never read", evidence.index)
        witnesses = tuple(
            self._witness(evidence.index, name, seen.data[kind], seen.ref)
            for name, kind in (("guest-log", "logged"), ("console", "console"))
        )
        verdicts = {witness.verdict for witness in witnesses}
        told = "; ".join(f"{witness.name}: {witness.evidence}" for witness in witnesses)
        if len(verdicts) > 1:
            outcome, text = Outcome.ERROR, f"log and console disagree: {told}"
        elif verdicts == {WitnessVerdict.CONFIRMS}:
            outcome, text = Outcome.PASS, f"{self.summary()}, in log and console"
        else:
            outcome, text = Outcome.FAIL, told
        finding = Finding(outcome=outcome, text=text, step=evidence.index, refs=(seen.ref,))
        return Judgement(findings=(finding,), witnesses=witnesses)

    def _witness(self, index: int, name: str, lines: list[str], ref: str) -> Witness:
        missing = [words for words in self.boot_log.says if not any(words in line for line in lines)]
        wrong = [line for line in lines if any(words in line for words in self.boot_log.never)]
        problems = [f"nothing says '{words}'" for words in missing] + [f"it says '{line}'" for line in wrong]
        verdict = WitnessVerdict.DENIES if problems else WitnessVerdict.CONFIRMS
        text = "; ".join(problems) or f"all is said that must be ({len(self.boot_log.says)})"
        return Witness(name=name, step=index, verdict=verdict, evidence=text, refs=(ref,))
