"""unmap: take a buffer away from a device's domain."""

from __future__ import annotations

from pydantic import Field

from harness.errors import InfraError
from harness.scenario.section import Section
from harness.scenario.step import Reference, Step
from harness.scenario.values import Name
from harness.session import Session


class UnmapBody(Section):
    """What is taken away from whom."""

    device: Name = Field(description="A device of the domain that loses the mapping.")
    buffer: Name = Field(description="The buffer to unmap.")


class Unmap(Step, keyword="unmap"):
    """Unmap a buffer from a device's protection domain; its memory stays, so that a late write would show."""

    unmap: UnmapBody

    def summary(self) -> str:
        """Say in a line what is done."""
        return f"unmap '{self.unmap.buffer}' from '{self.unmap.device}'"

    def references(self) -> list[Reference]:
        """Name the device and the buffer."""
        return [
            Reference.use("device", self.unmap.device, "unmap", "device"),
            Reference.use("buffer", self.unmap.buffer, "unmap", "buffer"),
        ]

    def unmappings(self) -> list[tuple[str, str]]:
        """The one buffer."""
        return [(self.unmap.device, self.unmap.buffer)]

    def needs_assigned(self) -> tuple[str, ...]:
        """A domain is there once a device is in it."""
        return (self.unmap.device,)

    def run(self, session: Session) -> None:
        """Unmap it, and make sure that as much was unmapped as had been mapped."""
        domain = session.domain_of(session.device(self.unmap.device))
        known = session.book.live_range(domain, self.unmap.buffer)
        if not session.raw:
            answer = session.call("domain_unmap", domain=domain, iova=known.iova, size=known.size)
            if answer["unmapped"] != known.size:
                raise InfraError(f"{answer['unmapped']} of {known.size} bytes were unmapped at {known.iova:#x}")
        session.book.unmapped(domain, known.iova)
