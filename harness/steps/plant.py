"""plant: set a canary, a piece of guest memory that no domain of a device maps."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from harness.address_book import PAGE
from harness.nesting import plant
from harness.scenario.section import Section, complaint
from harness.scenario.step import Reference, Step
from harness.scenario.values import Name, PageSize
from harness.session import Session, fresh_bytes


class PlantBody(Section):
    """The canary."""

    canary: Name = Field(description="What later steps call it.")
    size: PageSize = Field(default=4096, description="Bytes, a multiple of 4 KiB; one page in a nested guest.")
    guest: Name | None = Field(default=None, description="The nested guest whose memory it is a part of.")

    @model_validator(mode="after")
    def _check_size(self) -> Self:
        if self.guest is not None and self.size != PAGE:
            raise complaint("a canary in a nested guest has one page of 4KiB", at=("size",), on_key=True)
        return self


class Plant(Step, keyword="plant"):
    """Fill a locked page of guest memory with random bytes: as a victim it must not change, as a secret not leave.

    In a nested guest it is also memory that the devices of that guest reach, so that a DMA of theirs there must land.
    """

    plant: PlantBody

    def summary(self) -> str:
        """Say in a line what is done."""
        where = f" in guest '{self.plant.guest}'" if self.plant.guest else ""
        return f"plant canary '{self.plant.canary}' ({self.plant.size >> 10} KiB){where}"

    def references(self) -> list[Reference]:
        """Name the canary, which exists from here on, and the guest."""
        names = [Reference.define("canary", self.plant.canary, "plant", "canary", once=True)]
        if self.plant.guest is not None:
            names.append(Reference.use("guest", self.plant.guest, "plant", "guest"))
        return names

    def needs_guests(self) -> tuple[str, ...]:
        """Only a guest that runs has memory."""
        return () if self.plant.guest is None else (self.plant.guest,)

    def buffers(self) -> list[tuple[str, int]]:
        """The canary."""
        return [(self.plant.canary, self.plant.size)]

    def run(self, session: Session) -> None:
        """Make the canary and see from outside that it stands where the guest says."""
        if self.plant.guest is None or session.raw:
            session.create_buffer(self.plant.canary, self.plant.size, fresh_bytes(PAGE))
        else:
            plant(session, self.plant.guest, self.plant.canary, fresh_bytes(PAGE), beyond=session.beyond)
