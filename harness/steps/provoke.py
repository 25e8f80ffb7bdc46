"""provoke: break the tables of a bare machine, and prove that the unit refuses a DMA and reports it as it must."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, model_validator

from harness.bare.attack import Aim, perform, whole
from harness.judgement import Judgement, StepEvidence
from harness.machine.spec import MachineKind
from harness.provocation.dma import Recipe, judge_provoked
from harness.scenario.edit import Edit, Edits
from harness.scenario.expectation import (
    EXPECTATION,
    Expectation,
    expected,
    expects_block,
    refuse_other_direction,
)
from harness.scenario.section import Section, complaint
from harness.scenario.step import Reference, Step
from harness.scenario.values import Address, Name, Size
from harness.source.nodes import NodePath
from harness.vtd.faults import Access

if TYPE_CHECKING:  # planning imports every step, and needs no machine
    from harness.bare.session import BareSession

#: Fewer random bytes could be equal by chance, and a witness of bytes must not be.
SHORTEST = 16


class ProvokeBody(Section):
    """One DMA that must be refused: by whom, how much, what is broken for it, and where it goes."""

    device: Name = Field(description="The device that issues it.")
    write: Size | None = Field(default=None, description="Bytes the device writes, a multiple of 4 from 16 on.")
    read: Size | None = Field(default=None, description="Bytes the device reads, a multiple of 4 from 16 on.")
    at: Address | None = Field(default=None, description="Where it goes; a page that is mapped if not given.")
    break_: Edits = Field(default=(), alias="break", description="What is broken before it: an edit or a list of them.")
    cached: Literal["read", "write"] | None = Field(
        default=None,
        description="A DMA of this direction to the same place before it, once things are broken, which must land: the "
        "unit then has the translation in its cache.",
    )

    @model_validator(mode="after")
    def _check_whole(self) -> Self:
        if (self.write is None) == (self.read is None):
            raise complaint("a DMA needs either 'write' or 'read'", on_key=True)
        if self.length < SHORTEST or self.length % 4:
            hint = f"take a multiple of 4 from {SHORTEST} on"
            text = "a DMA cannot be {written} bytes long"
            raise complaint(text, value=self.length, at=(self.access.value,), suggestion=hint)
        if self.at is None and not self.break_:
            hint = "add break: {...}, or at: an address that nothing maps"
            raise complaint("nothing is broken and the page is mapped, so it would land", on_key=True, suggestion=hint)
        return self

    @property
    def access(self) -> Access:
        """The direction as the remapping unit sees it."""
        return Access.WRITE if self.write is not None else Access.READ

    @property
    def length(self) -> int:
        """Bytes to move."""
        return self.write or self.read or 0


class Provoke(Step, keyword="provoke"):
    """Provoke a fault on a bare machine.

    With whole tables the device's DMA lands, which is the positive control. Then the tables are broken, the DMA is
    issued again, and the fault record, QEMU's trace and the bytes at every place it could have reached are compared
    with what is expected. With whole tables it must land again afterwards.
    """

    machine_kind: ClassVar[MachineKind] = "bare"

    provoke: ProvokeBody
    expect: Expectation = Field(description=EXPECTATION)

    @model_validator(mode="after")
    def _check_reason(self) -> Self:
        """Refuse a reason that cannot be."""
        refuse_other_direction(self.expect, self.provoke.access)
        return self

    @property
    def expects_block(self) -> bool:
        """Whether the specification asks for a refusal."""
        return expects_block(self.expect)

    @property
    def is_control(self) -> bool:
        """It holds one."""
        return True

    @property
    def breaks_tables(self) -> bool:
        """Unbroken, it is a DMA through whole tables to a mapped page."""
        return True

    def summary(self) -> str:
        """Say in a line what is done."""
        body = self.provoke
        broken = ", ".join(map(str, body.break_))
        where = "" if body.at is None else f" at {body.at:#x}"
        cached = f" after a {body.cached}" if body.cached else ""
        return f"'{body.device}' {body.access}s {body.length} bytes{where}{cached}{f' with {broken}' if broken else ''}"

    def references(self) -> list[Reference]:
        """Name the device."""
        return [Reference.use("device", self.provoke.device, "provoke", "device")]

    def edits(self) -> list[tuple[NodePath, Edit]]:
        """Give the edits."""
        return [(("provoke", "break", index), edit) for index, edit in enumerate(self.provoke.break_)]

    def needs_engine(self) -> list[tuple[str, str, NodePath]]:
        """Give the device."""
        return [(self.provoke.device, self.provoke.access.value, ("provoke", "device"))]

    @property
    def bare_length(self) -> int:
        """Each of its DMAs is as long."""
        return self.provoke.length

    def run(self, session: BareSession) -> None:
        """Issue the DMA with whole, broken and whole tables, and record all that tells what became of each."""
        body = self.provoke
        device = session.device(body.device)
        layout = session.lay()
        home = Aim(layout.mapped(body.device), body.access, body.length)
        away = home if session.unbroken or body.at is None else Aim(body.at, body.access, body.length)
        session.record(
            "recipe",
            device=body.device,
            model=device.model,
            function=device.function,
            source_id=str(device.source),
            translation=session.translation,
            levels=session.levels,
            home=home.address,
            address=away.address,
            edits=[str(edit) for edit in body.break_],
            unbroken=session.unbroken,
        )
        whole(session, device, home, "control")
        if not session.unbroken:
            session.edit(body.device, body.break_)
            if body.cached is not None:
                perform(session, device, Aim(away.address, Access(body.cached), body.length), "cached")
        perform(session, device, away, "attack")
        session.lay()
        whole(session, device, home, "healed")

    def judge(self, evidence: StepEvidence) -> Judgement:
        """Weigh the witnesses of the three DMAs."""
        body = self.provoke
        recipe = Recipe(
            device=body.device,
            access=body.access,
            length=body.length,
            address=body.at,
            cached=body.cached is not None,
            text=self.summary(),
            fault_processing_disabled=any(edit.disables_reports for edit in body.break_),
        )
        return judge_provoked(evidence, recipe, expected(self.expect, body.access, evidence.qemu))
