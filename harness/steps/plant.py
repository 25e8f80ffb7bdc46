"""plant: set a canary, a piece of guest memory that no domain of a device maps."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from harness.address_book import PAGE
from harness.judgement import Judgement, StepEvidence
from harness.nesting import plant
from harness.scenario.section import Section, complaint
from harness.scenario.step import Reference, Step
from harness.scenario.values import Name, PageSize
from harness.session import Session, fresh_bytes
from harness.sharing.driver_memory import SIZE, plant_received
from harness.sharing.memory_judging import judge_received


class PlantBody(Section):
    """The canary."""

    canary: Name = Field(description="What later steps call it.")
    size: PageSize = Field(default=4096, description="Bytes, a multiple of 4 KiB; one page in a nested guest.")
    guest: Name | None = Field(default=None, description="The nested guest whose memory it is a part of.")
    of: Name | None = Field(
        default=None,
        description="A NIC with virtual functions, under its kernel driver: the canary is in memory that this driver "
        "has mapped for it, 1 KiB of a receive buffer.",
    )

    @model_validator(mode="after")
    def _check_size(self) -> Self:
        if self.of is not None:
            for key in ("guest", "size"):
                if key in self.model_fields_set:
                    text = "a canary in memory that a driver has mapped is 1 KiB of a receive buffer of the platform's"
                    raise complaint(text, at=(key,), on_key=True, suggestion=f"leave out '{key}'")
        if self.guest is not None and self.size != PAGE:
            raise complaint("a canary in a nested guest has one page of 4KiB", at=("size",), on_key=True)
        return self


class Plant(Step, keyword="plant"):
    """Fill a locked page of guest memory with random bytes: as a victim it must not change, as a secret not leave.

    In a nested guest it is also memory that the devices of that guest reach, so that a DMA of theirs there must land.
    With `of` it is memory in the domain of a NIC, which writes the bytes there itself: they come by its wire. That is
    judged. Its functions must be stopped there, although they are of the same NIC.
    """

    plant: PlantBody

    def summary(self) -> str:
        """Say in a line what is done."""
        where = f" in guest '{self.plant.guest}'" if self.plant.guest else ""
        if self.plant.of:
            where = f" in memory that the driver of '{self.plant.of}' has mapped for it"
        return f"plant canary '{self.plant.canary}' ({self._size >> 10} KiB){where}"

    @property
    def _size(self) -> int:
        return self.plant.size if self.plant.of is None else SIZE

    def references(self) -> list[Reference]:
        """Name the canary, which exists from here on, and the guest."""
        names = [Reference.define("canary", self.plant.canary, "plant", "canary", once=True)]
        if self.plant.guest is not None:
            names.append(Reference.use("guest", self.plant.guest, "plant", "guest"))
        if self.plant.of is not None:
            names.append(Reference.use("device", self.plant.of, "plant", "of"))
        return names

    def needs_kernel_driver(self) -> tuple[str, ...]:
        """It is the driver that maps memory for the NIC."""
        return () if self.plant.of is None else (self.plant.of,)

    def needs_functions(self) -> tuple[str, ...]:
        """Which of its queues is the NIC's own follows from the number of its functions."""
        return self.needs_kernel_driver()

    def needs_guests(self) -> tuple[str, ...]:
        """Only a guest that runs has memory."""
        return () if self.plant.guest is None else (self.plant.guest,)

    def buffers(self) -> list[tuple[str, int]]:
        """The canary."""
        return [(self.plant.canary, self._size)]

    def run(self, session: Session) -> None:
        """Make the canary and see from outside that it stands where the guest says."""
        if self.plant.of is not None:
            plant_received(session, self.plant.canary, session.device(self.plant.of))
        elif self.plant.guest is None or session.raw:
            session.create_buffer(self.plant.canary, self.plant.size, fresh_bytes(PAGE))
        else:
            plant(session, self.plant.guest, self.plant.canary, fresh_bytes(PAGE), beyond=session.beyond)

    def judge(self, evidence: StepEvidence) -> Judgement | None:
        """Judge that the NIC itself reaches a canary of its driver's; any other canary is for others to prove."""
        return None if self.plant.of is None else judge_received(evidence, self.plant.canary, self.plant.of)
