"""map: give a device's domain access to a buffer at an I/O virtual address."""

from __future__ import annotations

from pydantic import Field

from harness.scenario.section import Section
from harness.scenario.step import Mapped, Reference, Step
from harness.scenario.values import Access, Name, PageAddress, PageSize
from harness.session import Session, fresh_bytes


class MapBody(Section):
    """What is mapped where, and what for."""

    device: Name = Field(description="A device of the domain that gets the mapping; it must be assigned.")
    buffer: Name = Field(description="The memory to map; it is made if no earlier step made it.")
    iova: PageAddress = Field(description="The I/O virtual address it appears at, a multiple of 4 KiB.")
    size: PageSize = Field(description="Bytes, a multiple of 4 KiB.")
    access: Access = Field(default="rw", description="What the device may do with it: r, w or rw.")


class Map(Step, keyword="map"):
    """Map a buffer of guest memory into a device's protection domain, readable, writable or both."""

    map: MapBody

    def summary(self) -> str:
        """Say in a line what is done."""
        body = self.map
        return f"map '{body.buffer}' ({body.size >> 10} KiB, {body.access}) at {body.iova:#x} for '{body.device}'"

    def references(self) -> list[Reference]:
        """Name the device, and the buffer, which exists from here on."""
        return [
            Reference.use("device", self.map.device, "map", "device"),
            Reference.define("buffer", self.map.buffer, "map", "buffer"),
        ]

    def buffers(self) -> list[tuple[str, int]]:
        """The buffer, if it is new."""
        return [(self.map.buffer, self.map.size)]

    def mappings(self) -> list[Mapped]:
        """The one range."""
        return [Mapped(self.map.device, self.map.buffer, self.map.iova, self.map.size, self.map.access)]

    def needs_assigned(self) -> tuple[str, ...]:
        """A domain is there once a device is in it."""
        return (self.map.device,)

    def run(self, session: Session) -> None:
        """Map the buffer; without protection there is nothing to map it in, and it is only booked."""
        body = self.map
        domain = session.domain_of(session.device(body.device))
        if body.buffer not in session.book.buffers:
            session.create_buffer(body.buffer, body.size, fresh_bytes(64))
        if not session.raw:
            session.call(
                "domain_map", domain=domain, buffer=body.buffer, iova=body.iova, size=body.size, access=body.access
            )
        session.book.mapped(domain, body.buffer, body.iova, body.size)
