"""heal: put back what was broken in the tables that the guest made for a device."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from harness.scenario.section import Section, Shorthand
from harness.scenario.step import Reference, Step
from harness.scenario.values import Name
from harness.session import Session


class HealBody(Section):
    """Whose tables."""

    device: Name = Field(description="The device whose tables are put back as they were.")


class Heal(Step, keyword="heal"):
    """Put back everything that `break` changed for a device."""

    heal: Annotated[HealBody, Shorthand("device")]

    def summary(self) -> str:
        """Say in a line what is done."""
        return f"heal the tables of '{self.heal.device}'"

    def references(self) -> list[Reference]:
        """Name the device."""
        return [Reference.use("device", self.heal.device, "heal", "device")]

    def run(self, session: Session) -> None:
        """Put the bytes back; without anything broken there is nothing to do."""
        session.patches.heal(self.heal.device)
