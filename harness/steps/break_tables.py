"""break: change an entry of the tables that the guest made for a device, from outside and behind its back."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from harness.scenario.edit import Edit
from harness.scenario.section import complaint
from harness.scenario.step import Reference, Step
from harness.scenario.target import TargetField
from harness.scenario.values import Name
from harness.session import AttachedDevice, Session
from harness.source.nodes import NodePath
from harness.table_edit import break_entry


class BreakBody(Edit):
    """Whose entry, and what becomes of it."""

    device: Name = Field(description="The device on the way of whose requests the entry is; it must be assigned.")
    at: TargetField | None = Field(
        default=None,
        description="Where the request goes whose entry is meant; the first page mapped for the device if not given.",
    )

    @model_validator(mode="after")
    def _check_reach(self) -> Self:
        if self.entry == "irta":
            text = "under Linux the interrupt table serves every device, the guest's own channels included"
            raise complaint(text, at=("entry",), suggestion="break the entry of one device: irte")
        if self.value == "rom":
            raise complaint("only a bare machine has paging entries in ROM", at=("value",))
        return self


class Break(Step, keyword="break"):
    """Change one entry of the tables the guest made, found by walking them from outside, and make it effective.

    The guest's kernel does not learn of it. `heal` puts back what stood there. In the counter-proof `unbroken`
    everything is left as it is.
    """

    break_: BreakBody = Field(alias="break")

    def summary(self) -> str:
        """Say in a line what is done."""
        return f"break the tables of '{self.break_.device}': {self.break_}"

    def references(self) -> list[Reference]:
        """Name the device, and the buffer or canary on whose way the entry is."""
        names = [Reference.use("device", self.break_.device, "break", "device")]
        if self.break_.at is not None and self.break_.at.name is not None:
            names.append(Reference.use(("buffer", "canary"), self.break_.at.name, "break", "at"))
        return names

    def walked(self) -> list[tuple[str, int]]:
        """The address whose entry is meant, if it is given as one."""
        at = self.break_.at
        return [("at", at.offset)] if at is not None and at.name is None else []

    def edits(self) -> list[tuple[NodePath, Edit]]:
        """Give the one edit."""
        return [(("break",), self.break_)]

    def needs_assigned(self) -> tuple[str, ...]:
        """Linux makes tables for a device in a domain."""
        return (self.break_.device,)

    @property
    def breaks_tables(self) -> bool:
        """It does."""
        return True

    def run(self, session: Session) -> None:
        """Make the edit, unless the tables are to stay as they are."""
        device = session.device(self.break_.device)
        address = self._address(session, device)
        if not session.unbroken:
            break_entry(session, device, self.break_, address)

    def _address(self, session: Session, device: AttachedDevice) -> int:
        if self.break_.at is not None:
            return self.break_.at.aim(session, device, 1).address
        mine = [known for known in session.book.ranges if known.domain == device.domain and known.live]
        return mine[0].iova if mine else device.staging_iova
