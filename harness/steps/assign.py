"""assign: hand a device to user space in a protection domain."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from harness.scenario.section import Section, Shorthand
from harness.scenario.step import Reference, Step
from harness.scenario.values import Name
from harness.session import Session


class AssignBody(Section):
    """Which device, and into which domain."""

    device: Name = Field(description="The device to assign.")
    domain: Name | None = Field(default=None, description="Its protection domain; one of its own if not given.")


class Assign(Step, keyword="assign"):
    """Bind a device to vfio-pci, put its group into a protection domain, and open it with a staging buffer mapped.

    In a counter-proof there is no domain to put it in, so it is driven without VFIO: by its registers in sysfs.
    """

    assign: Annotated[AssignBody, Shorthand("device")]

    def summary(self) -> str:
        """Say in a line what is done."""
        return f"assign '{self.assign.device}' to domain '{self.domain}'"

    @property
    def domain(self) -> str:
        """The domain's name."""
        return self.assign.domain or f"{self.assign.device}-domain"

    def references(self) -> list[Reference]:
        """Name the device and its domain, which comes into being with its first device."""
        return [
            Reference.use("device", self.assign.device, "assign", "device"),
            Reference.define("domain", self.domain, "assign", "domain"),
        ]

    def assignments(self) -> list[tuple[str, str | None]]:
        """The device is in the domain from here on."""
        return [(self.assign.device, self.domain)]

    def run(self, session: Session) -> None:
        """Assign and open the device."""
        session.enter_domain(session.device(self.assign.device), self.domain)
