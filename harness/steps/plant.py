"""plant: set a canary, a piece of guest memory that no domain of a device maps."""

from __future__ import annotations

from pydantic import Field

from harness.address_book import PAGE
from harness.scenario.section import Section
from harness.scenario.step import Reference, Step
from harness.scenario.values import Name, PageSize
from harness.session import Session, fresh_bytes


class PlantBody(Section):
    """The canary."""

    canary: Name = Field(description="What later steps call it.")
    size: PageSize = Field(default=4096, description="Bytes, a multiple of 4 KiB.")


class Plant(Step, keyword="plant"):
    """Fill a locked page of guest memory with random bytes: as a victim it must not change, as a secret not leave."""

    plant: PlantBody

    def summary(self) -> str:
        """Say in a line what is done."""
        return f"plant canary '{self.plant.canary}' ({self.plant.size >> 10} KiB)"

    def references(self) -> list[Reference]:
        """Name the canary, which exists from here on."""
        return [Reference.define("canary", self.plant.canary, "plant", "canary", once=True)]

    def buffers(self) -> list[tuple[str, int]]:
        """The canary."""
        return [(self.plant.canary, self.plant.size)]

    def run(self, session: Session) -> None:
        """Make the canary and see from outside that it stands where the guest says."""
        session.create_buffer(self.plant.canary, self.plant.size, fresh_bytes(PAGE))
