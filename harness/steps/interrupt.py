"""interrupt: break interrupt remapping on a bare machine, and prove that a request is refused and reported."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from harness.bare.interrupt import Request, own_index, perform
from harness.judgement import Judgement, StepEvidence
from harness.machine.spec import MachineKind
from harness.provocation.interrupt import InterruptRecipe, judge_interrupt
from harness.scenario.edit import Edit, Edits
from harness.scenario.expectation import EXPECTATION, Blocked, Expectation, behaviours, expected, expects_block
from harness.scenario.section import Section, complaint
from harness.scenario.step import Reference, Step
from harness.scenario.values import Name
from harness.source.nodes import NodePath
from harness.vtd.faults import REASON_BY_NAME, Access, Mode

if TYPE_CHECKING:  # planning imports every step, and needs no machine
    from harness.bare.session import BareSession


class InterruptBody(Section):
    """One interrupt request that must be refused: by whom, in which form, and what is broken for it."""

    device: Name = Field(description="The device that requests it.")
    by: Literal["msi", "dma"] = Field(
        default="msi", description="By its MSI capability, or by a DMA write to the interrupt range."
    )
    format: Literal["remappable", "compatibility"] = Field(
        default="remappable", description="Whether the request names an entry, or destination and vector by itself."
    )
    index: Annotated[int, Field(ge=0, le=0xFFFF)] | None = Field(
        default=None, description="The entry it names; the device's own if not given."
    )
    subhandle: Annotated[int, Field(ge=0, le=0xFFFF)] | None = Field(
        default=None, description="A subhandle, which is added to the index."
    )
    data: Annotated[int, Field(ge=0, le=0xFFFF_FFFF)] | None = Field(
        default=None, description="What is written; the subhandle if not given. Only a DMA writes more than 16 bits."
    )
    break_: Edits = Field(default=(), alias="break", description="What is broken before it: edits of irte or irta.")

    @model_validator(mode="after")
    def _check_whole(self) -> Self:
        for index, edit in enumerate(self.break_):
            if edit.entry not in ("irte", "irta"):
                at = ("break", index, "entry")
                raise complaint("{written} has no part in remapping an interrupt", value=edit.entry, at=at)
        if self.format == "compatibility" and (self.index is not None or self.subhandle is not None):
            raise complaint("a request in compatibility format names no entry", on_key=True)
        if self.by == "msi" and (self.data or 0) >> 16:
            raise complaint("an MSI capability holds 16 bits of data", value=self.data, at=("data",))
        changed = (self.index, self.subhandle, self.data) != (None, None, None)
        if not self.break_ and not changed and self.format == "remappable" and self.by == "msi":
            hint = "add break: {...}, another index, or format: compatibility"
            raise complaint("nothing is wrong with this request, so it is delivered", on_key=True, suggestion=hint)
        return self


class Interrupt(Step, keyword="interrupt"):
    """Provoke an interrupt remapping fault on a bare machine.

    With whole entries the device's interrupt is delivered, which is the positive control. Then remapping is broken, or
    another request is made, and the fault record, QEMU's trace and the vectors that wait in the local APIC are compared
    with what is expected. With whole entries it must be delivered again afterwards.
    """

    machine_kind: ClassVar[MachineKind] = "bare"

    interrupt: InterruptBody
    expect: Expectation = Field(description=EXPECTATION)

    @model_validator(mode="after")
    def _check_reason(self) -> Self:
        """Refuse a reason that is not one of an interrupt."""
        for where, behaviour in behaviours(self.expect):
            if not isinstance(behaviour, Blocked):
                continue
            if behaviour.blocked.reason is None:
                raise complaint("an interrupt is refused for a 'reason'", at=("expect", *where), suggestion=_ANY)
            for name in behaviour.blocked.reason:
                if REASON_BY_NAME[name].mode is not Mode.INTERRUPT:
                    at = ("expect", *where, "blocked", "reason")
                    raise complaint(f"an interrupt is never refused for '{name}'", at=at, suggestion=_ANY)
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
        """Unbroken, it is a request through the device's own whole entry."""
        return True

    def summary(self) -> str:
        """Say in a line what is done."""
        body = self.interrupt
        words = [f"'{body.device}' requests an interrupt by {'DMA' if body.by == 'dma' else 'MSI'}"]
        if body.format == "compatibility":
            words.append("in compatibility format")
        for key in ("index", "subhandle", "data"):
            value = getattr(body, key)
            if value is not None:
                words.append(f"with {key} {value:#x}")
        if body.break_:
            words.append(f"with {', '.join(map(str, body.break_))}")
        return " ".join(words)

    def references(self) -> list[Reference]:
        """Name the device."""
        return [Reference.use("device", self.interrupt.device, "interrupt", "device")]

    def edits(self) -> list[tuple[NodePath, Edit]]:
        """Give the edits."""
        return [(("interrupt", "break", index), edit) for index, edit in enumerate(self.interrupt.break_)]

    def needs_engine(self) -> list[tuple[str, str, NodePath]]:
        """Give the device."""
        return [(self.interrupt.device, "interrupt", ("interrupt", "device"))]

    def run(self, session: BareSession) -> None:
        """Request the interrupt with whole, broken and whole entries, and record all that tells what became of each."""
        body = self.interrupt
        device = session.device(body.device)
        session.lay()
        own = own_index(session, body.device)
        whole = Request(index=own, by_dma=body.by == "dma")
        index = own if body.index is None else body.index
        attack = Request(
            index=index,
            by_dma=body.by == "dma",
            compatibility=body.format == "compatibility",
            subhandle=body.subhandle,
            data=body.data,
        )
        session.record(
            "recipe",
            device=body.device,
            model=device.model,
            function=device.function,
            source_id=str(device.source),
            index=(own if session.unbroken else index + (body.subhandle or 0)),
            edits=[str(edit) for edit in body.break_],
            by=body.by,
            unbroken=session.unbroken,
        )
        perform(session, device, whole, "control")
        if session.unbroken:
            perform(session, device, whole, "attack")
        else:
            perform(session, device, attack, "attack", edits=body.break_)
        perform(session, device, whole, "healed")

    def judge(self, evidence: StepEvidence) -> Judgement:
        """Weigh the witnesses of the three requests."""
        body = self.interrupt
        recipe = InterruptRecipe(
            device=body.device,
            text=self.summary(),
            fault_processing_disabled=any(edit.disables_reports for edit in body.break_),
        )
        return judge_interrupt(evidence, recipe, expected(self.expect, Access.WRITE, evidence.qemu))


_ANY = "those of interrupts begin with 'ir-'"
