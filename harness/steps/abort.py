"""abort: poke a bare machine where some QEMU versions die of it, and find out whether this one does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from harness.bare.pokes import POKES, poke
from harness.judgement import Judgement, StepEvidence
from harness.machine.spec import MachineKind
from harness.provocation.survival import judge_survival
from harness.scenario.expectation import Versions
from harness.scenario.section import Section, Shorthand, complaint
from harness.scenario.step import Step

if TYPE_CHECKING:  # planning imports every step, and needs no machine
    from harness.bare.session import BareSession


class AbortBody(Section):
    """What is done to the machine."""

    poke: str = Field(description=f"One of {', '.join(f'`{name}`' for name in POKES)}.")

    @model_validator(mode="after")
    def _check_poke(self) -> Self:
        if self.poke not in POKES:
            text = "{written} is no poke"
            raise complaint(text, value=self.poke, at=("poke",), word=self.poke, choices=POKES, plural="pokes")
        return self


class Dies(Section):
    """QEMU ends."""

    dies: Annotated[str, Field(min_length=1)] = Field(description="Words that its stderr contains then.")


class DeathDeviation(Versions):
    """QEMU must survive, and some versions are known to die."""

    spec: Literal["survives"] = Field(description="A guest must not be able to end its machine.")
    qemu: Dies = Field(description="How these versions die.")


def _tag(value: Any) -> str:
    return "<word>" if isinstance(value, str) else "<deviation>"


def _check(value: Any) -> Any:
    if isinstance(value, str) and value != "survives":
        raise complaint("{written} is neither 'survives' nor a deviation", value=value, suggestion="write survives")
    if not isinstance(value, str | dict | Section):
        raise complaint("{written} is neither 'survives' nor a deviation", value=value, suggestion="write survives")
    return value


Survival = Annotated[
    Annotated[Literal["survives"], Tag("<word>")] | Annotated[DeathDeviation, Tag("<deviation>")],
    Discriminator(_tag),
    BeforeValidator(_check),
]


class Abort(Step, keyword="abort"):
    """Do what ends some versions of QEMU. It is the last step, because QEMU may not outlive it.

    Where QEMU survives, its unit must still translate a DMA and answer; where it dies, its exit status and its words
    are compared with those it is known for.
    """

    machine_kind: ClassVar[MachineKind] = "bare"

    abort: Annotated[AbortBody, Shorthand("poke")]
    expect: Survival = Field(
        description="`survives`, or `{spec: survives, qemu: {dies: WORDS}, since: VERSION, until: VERSION, why: WHY}`."
    )

    @property
    def ends_machine(self) -> bool:
        """QEMU may end in it."""
        return True

    @property
    def is_control(self) -> bool:
        """Before the poke the unit answers."""
        return True

    def summary(self) -> str:
        """Say in a line what is done."""
        return POKES[self.abort.poke].text

    def run(self, session: BareSession) -> None:
        """Poke, and see whether QEMU ends."""
        poke(session, POKES[self.abort.poke])

    def judge(self, evidence: StepEvidence) -> Judgement:
        """Tell whether QEMU lives, and if not, whether it is known to die so."""
        deviation = self.expect if isinstance(self.expect, DeathDeviation) else None
        known = deviation is not None and deviation.cover(evidence.qemu)
        return judge_survival(
            evidence,
            self.summary(),
            words=deviation.qemu.dies if deviation is not None else None,
            known=known,
            why=deviation.why if deviation is not None else "",
        )
