"""release: take a device out of its protection domain."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from harness.scenario.section import Section, Shorthand
from harness.scenario.step import Reference, Step
from harness.scenario.values import Name
from harness.session import Session


class ReleaseBody(Section):
    """Which device, and to whom."""

    device: Name = Field(description="The device to release.")
    to: Literal["nobody", "kernel"] = Field(default="nobody", description="`kernel` binds its kernel driver again.")


class Release(Step, keyword="release"):
    """Close a device, take it out of its domain, and leave it to nobody or to its kernel driver."""

    release: Annotated[ReleaseBody, Shorthand("device")]

    def summary(self) -> str:
        """Say in a line what is done."""
        return f"release '{self.release.device}' to {self.release.to}"

    def references(self) -> list[Reference]:
        """Name the device."""
        return [Reference.use("device", self.release.device, "release", "device")]

    def assignments(self) -> list[tuple[str, str | None]]:
        """The device is in no domain from here on."""
        return [(self.release.device, None)]

    def needs_assigned(self) -> tuple[str, ...]:
        """Only who is assigned can be released."""
        return (self.release.device,)

    def run(self, session: Session) -> None:
        """Release the device."""
        device = session.device(self.release.device)
        session.leave_domain(device)
        if self.release.to == "kernel":
            session.bind_kernel_driver(device)
