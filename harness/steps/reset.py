"""reset: reset one virtual function while another of the same NIC carries traffic, which must not notice."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from harness.judgement import Judgement, StepEvidence
from harness.scenario.section import Section
from harness.scenario.step import Reference, Step
from harness.scenario.values import Name
from harness.session import Session
from harness.sharing.reset import record_reset
from harness.sharing.reset_judging import judge_reset


class ResetBody(Section):
    """Which function, beside which, and how much traffic."""

    device: Name = Field(description="The virtual function that is reset; it must be assigned, or seized.")
    beside: Name = Field(description="Another one of the same NIC, under its kernel driver.")
    frames: Annotated[int, Field(ge=1, le=500)] = Field(
        default=32, description="Frames over it before the reset, and after it, at least."
    )
    size: Annotated[int, Field(ge=46, le=1500)] = Field(default=1200, description="Bytes of payload per frame.")


class Reset(Step, keyword="reset"):
    """Reset a virtual function (FLR) while the guest that has another one sends back frames of random bytes.

    The kernel of the guest that has the function asks for the reset. QEMU must trace that it reached this function and
    no other, and the function's receive queue, read from outside, must be on before (a `dma` that writes switches it
    on) and off after it. Each frame before, during and after the reset must come back as it was sent, and nobody may
    fault. The function is usable again afterwards.
    """

    reset: ResetBody

    def summary(self) -> str:
        """Say in a line what is done."""
        return f"reset '{self.reset.device}' while '{self.reset.beside}' carries frames"

    def references(self) -> list[Reference]:
        """Name both functions."""
        return [Reference.use("device", getattr(self.reset, key), "reset", key) for key in ("device", "beside")]

    def needs_assigned(self) -> tuple[str, ...]:
        """Its owner's user space has it: a driver would have to be told of the reset."""
        return (self.reset.device,)

    def needs_kernel_driver(self) -> tuple[str, ...]:
        """The kernel's driver moves the frames."""
        return (self.reset.beside,)

    def needs_one_nic(self) -> tuple[str, str]:
        """They are functions of one NIC, or there would be nothing to disturb."""
        return (self.reset.device, self.reset.beside)

    def run(self, session: Session) -> None:
        """Keep frames going, and reset the function meanwhile."""
        body = self.reset
        record_reset(
            session, session.device(body.device), session.device(body.beside), frames=body.frames, size=body.size
        )

    def judge(self, evidence: StepEvidence) -> Judgement:
        """Hold the reset to its traces, and the frames to their bytes."""
        return judge_reset(evidence, self.reset.device, self.reset.beside, self.reset.frames)
