"""seize: have a nested guest's user space drive the device that the guest was handed."""

from __future__ import annotations

from pydantic import Field

from harness.nesting import seize
from harness.scenario.section import Section
from harness.scenario.step import Reference, Step
from harness.scenario.values import Name
from harness.session import Session


class SeizeBody(Section):
    """Which device."""

    device: Name = Field(description="A device that a guest was handed.")
    guest: Name = Field(description="The guest that has it.")


class Seize(Step, keyword="seize"):
    """Take a device from its driver in the guest that has it: user space there aims its DMA where it likes.

    The guest has no remapping unit of its own, so what keeps the device in is the platform's. In a counter-proof the
    platform's user space drives it.
    """

    seize: SeizeBody

    def summary(self) -> str:
        """Say in a line what is done."""
        return f"user space of '{self.seize.guest}' takes '{self.seize.device}'"

    def references(self) -> list[Reference]:
        """Name the device and the guest."""
        return [
            Reference.use("device", self.seize.device, "seize", "device"),
            Reference.use("guest", self.seize.guest, "seize", "guest"),
        ]

    def assignments(self) -> list[tuple[str, str | None]]:
        """The guest's memory is the device's domain."""
        return [(self.seize.device, self.seize.guest)]

    def needs_handed(self) -> list[tuple[str, str]]:
        """Only who has a device can take it from its driver."""
        return [(self.seize.device, self.seize.guest)]

    def run(self, session: Session) -> None:
        """Unbind the driver and open the device for its engine."""
        device = session.device(self.seize.device)
        if session.raw:
            session.enter_domain(device, self.seize.guest)
        else:
            seize(session, device)
