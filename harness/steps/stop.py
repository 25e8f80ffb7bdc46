"""stop: end a nested guest."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from harness.nesting import end_guest
from harness.scenario.section import Section, Shorthand
from harness.scenario.step import Reference, Step
from harness.scenario.values import Name
from harness.session import Session


class StopBody(Section):
    """Which guest."""

    guest: Name = Field(description="A guest that runs.")


class Stop(Step, keyword="stop"):
    """End a nested guest; the devices that it had may be handed to another, or assigned in the platform itself."""

    stop: Annotated[StopBody, Shorthand("guest")]

    def summary(self) -> str:
        """Say in a line what is done."""
        return f"stop guest '{self.stop.guest}'"

    def references(self) -> list[Reference]:
        """Name the guest."""
        return [Reference.use("guest", self.stop.guest, "stop", "guest")]

    def stops_guests(self) -> tuple[str, ...]:
        """The guest does not run any more."""
        return (self.stop.guest,)

    def needs_guests(self) -> tuple[str, ...]:
        """Only who runs can be ended."""
        return (self.stop.guest,)

    def run(self, session: Session) -> None:
        """End it, if it was ever started."""
        if not session.raw:
            end_guest(session, self.stop.guest)
