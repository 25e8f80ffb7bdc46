"""withdraw: unplug a device while a nested guest has it, plug it in again, and hand it over once more."""

from __future__ import annotations

from pydantic import Field

from harness.judgement import Judgement, StepEvidence, nobody_faulted, single
from harness.nesting import acting, hand_over, withdraw
from harness.scenario.section import Section
from harness.scenario.step import Reference, Step
from harness.scenario.values import Name
from harness.session import Session
from harness.verdict import Finding, Outcome, WitnessVerdict


class WithdrawBody(Section):
    """Which device, of which guest."""

    device: Name = Field(description="A device that the guest was handed.")
    guest: Name = Field(description="The guest that has it.")


class Withdraw(Step, keyword="withdraw"):
    """Unplug a device from the machine while a nested guest drives it, then plug it in and hand it over again.

    VFIO asks the guest's QEMU for the device, which asks the guest; both must let go of it, nobody may fault, no group
    may be left over, and the guest must be able to drive it again.
    """

    withdraw: WithdrawBody

    def summary(self) -> str:
        """Say in a line what is done."""
        return f"unplug '{self.withdraw.device}' while guest '{self.withdraw.guest}' has it, and hand it over again"

    def references(self) -> list[Reference]:
        """Name the device and the guest."""
        return [
            Reference.use("device", self.withdraw.device, "withdraw", "device"),
            Reference.use("guest", self.withdraw.guest, "withdraw", "guest"),
        ]

    def needs_handed(self) -> list[tuple[str, str]]:
        """The guest has it."""
        return [(self.withdraw.device, self.withdraw.guest)]

    def run(self, session: Session) -> None:
        """Unplug, look at both sides, plug in, hand over."""
        if session.raw:
            return
        name, guest = self.withdraw.device, self.withdraw.guest
        groups = session.call("iommu_state")["groups"]
        withdraw(session, session.device(name))
        without = session.call("iommu_state")["groups"]
        session.plug(session.device(name))
        hand_over(session, session.device(name), guest)
        inner, mine = acting(session, session.device(name))
        inner.bind_kernel_driver(mine)
        again = session.call("iommu_state")["groups"]
        session.record("withdrawn", groups=[len(groups), len(without), len(again)], driver=mine.kernel_driver)

    def judge(self, evidence: StepEvidence) -> Judgement:
        """It was gone from both, and is there again."""
        seen = evidence.observation("withdrawn")
        if seen is None:
            return single(Outcome.ERROR, f"'{self.withdraw.device}' was not withdrawn", evidence.index)
        before, without, again = seen.data["groups"]
        others = nobody_faulted(evidence)
        if (without, again) != (before - 1, before):
            text = f"there were {before} IOMMU groups, {without} without the device, and {again} again"
            finding = Finding(outcome=Outcome.FAIL, text=text, step=evidence.index, refs=(seen.ref,))
        elif others.verdict is not WitnessVerdict.CONFIRMS:
            finding = Finding(outcome=Outcome.FAIL, text=others.evidence, step=evidence.index, refs=others.refs)
        else:
            text = f"'{self.withdraw.device}' was gone from guest and platform, and {seen.data['driver']} has it again"
            finding = Finding(outcome=Outcome.PASS, text=text, step=evidence.index, refs=(seen.ref,))
        return Judgement(findings=(finding,), witnesses=(others,))
