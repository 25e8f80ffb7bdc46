"""recording: refuse several DMAs on a bare machine without clearing, and prove what is recorded, lost and sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from harness.bare.attack import Aim, perform, phase
from harness.judgement import Judgement, StepEvidence
from harness.machine.spec import MachineKind
from harness.provocation.recording import Action, judge_recording
from harness.scenario.section import Section, complaint
from harness.scenario.step import Reference, Step
from harness.scenario.values import Name
from harness.source.nodes import NodePath
from harness.vtd.faults import Access

if TYPE_CHECKING:  # planning imports every step, and needs no machine
    from harness.bare.session import BareSession

#: Bytes of each DMA.
_LENGTH = 64

#: An address that no device's tables map.
_NOWHERE = 0x2_0000

#: The fault event: to the first processor, with a vector that no device uses.
_EVENT = (0xFEE0_0000, 0x41)


class ActionBody(Section):
    """One action, and what must hold after it; what is not given is empty, clear or none."""

    fault: Name | None = Field(default=None, description="This device writes to an address that nothing maps.")
    clear: Literal["record", "overflow", "both"] | None = Field(
        default=None, description="Software clears the fault record (F), the overflow (PFO), or both."
    )
    events: Literal["masked", "unmasked"] | None = Field(
        default=None, description="Software masks or unmasks the fault event (FECTL.IM); it is masked at first."
    )
    holds: Name | None = Field(default=None, description="The device whose fault then stands in the record.")
    overflow: bool = Field(default=False, description="Whether the overflow (PFO) is then set.")
    sent: Annotated[int, Field(ge=0, le=9)] = Field(default=0, description="Fault events sent because of it.")
    pending: bool = Field(default=False, description="Whether a fault event then waits to be sent (FECTL.IP).")
    unlike_spec: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="Why `pending` is not what the specification asks for, where QEMU is known to differ."
    )

    @model_validator(mode="after")
    def _check_one(self) -> Self:
        if sum(value is not None for value in (self.fault, self.clear, self.events)) != 1:
            raise complaint("an action is one of 'fault', 'clear' and 'events'", on_key=True)
        return self

    @property
    def text(self) -> str:
        """The action in words."""
        if self.fault is not None:
            return f"'{self.fault}' is refused a write"
        if self.clear is not None:
            return f"cleared: {self.clear}"
        return f"fault event {self.events}"


class Recording(Step, keyword="recording"):
    """Prove how faults are recorded: one at a time, with collapse and overflow, and when the fault event is sent.

    Each device's DMA lands first, which is the positive control.
    """

    machine_kind: ClassVar[MachineKind] = "bare"

    recording: Annotated[tuple[ActionBody, ...], Field(min_length=1)] = Field(
        description="The actions in order, each with what must hold after it."
    )

    @property
    def expects_block(self) -> bool:
        """Every DMA of it must be refused."""
        return any(action.fault is not None for action in self.recording)

    @property
    def is_control(self) -> bool:
        """It holds one for each device."""
        return True

    @property
    def breaks_tables(self) -> bool:
        """Unbroken, every DMA goes to a mapped page."""
        return True

    def summary(self) -> str:
        """Say in a line what is done."""
        return f"{len(self.recording)} actions on the fault record: {'; '.join(a.text for a in self.recording)}"

    def references(self) -> list[Reference]:
        """Name every device."""
        return [
            Reference.use("device", name, "recording", index, key)
            for index, action in enumerate(self.recording)
            for key, name in (("fault", action.fault), ("holds", action.holds))
            if name is not None
        ]

    def needs_engine(self) -> list[tuple[str, str, NodePath]]:
        """Give the devices that are refused a DMA."""
        return [
            (action.fault, "write", ("recording", index, "fault"))
            for index, action in enumerate(self.recording)
            if action.fault is not None
        ]

    @property
    def bare_length(self) -> int:
        """Each of its DMAs is as long."""
        return _LENGTH

    def run(self, session: BareSession) -> None:
        """Do one action after the other, and read the registers after each."""
        layout = session.lay()
        faulting = list(dict.fromkeys(action.fault for action in self.recording if action.fault is not None))
        models = {name: session.device(name).model for name in faulting}
        session.record("recipe", translation=session.translation, levels=session.levels, models=models)
        address, data = _EVENT
        session.fault_event(masked=True, address=address, data=data)
        session.clear()
        for name in faulting:
            home = Aim(layout.mapped(name), Access.WRITE, _LENGTH)
            perform(session, session.device(name), home, f"control of {name}")
        session.clear()
        for number, action in enumerate(self.recording, start=1):
            if action.fault is not None:
                where = layout.mapped(action.fault) if session.unbroken else _NOWHERE
                perform(session, session.device(action.fault), Aim(where, Access.WRITE, _LENGTH), str(number))
            else:
                with phase(session, str(number)):
                    self._act(session, action)
        session.fault_event(masked=True)
        session.clear()

    def judge(self, evidence: StepEvidence) -> Judgement:
        """Compare registers, trace and bytes after each action."""
        actions = [
            Action(
                text=action.text,
                fault=action.fault,
                holds=action.holds,
                overflow=action.overflow,
                sent=action.sent,
                pending=action.pending,
                unlike_spec=action.unlike_spec or "",
            )
            for action in self.recording
        ]
        return judge_recording(evidence, actions, _EVENT)

    @staticmethod
    def _act(session: BareSession, action: ActionBody) -> None:
        if action.clear in ("record", "both"):
            session.clear_record()
        if action.clear in ("overflow", "both"):
            session.clear_status()
        if action.events is not None:
            address, data = _EVENT
            session.fault_event(masked=action.events == "masked", address=address, data=data)
