"""invalidate: give the invalidation queue of a bare machine a bad descriptor, and prove that it stops and reports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from harness.bare.queue import Submission, good_descriptor, mend, submit
from harness.judgement import Judgement, StepEvidence
from harness.machine.spec import MachineKind
from harness.provocation.queue import judge_queue
from harness.scenario.expectation import Blocked, Expectation, behaviours, expected, expects_block
from harness.scenario.section import Section, complaint
from harness.scenario.step import Step
from harness.scenario.values import parse_address
from harness.vtd.invalidation import DESCRIPTORS, Descriptor, DescriptorType, Granularity
from harness.vtd.structure import Bits, Structure

if TYPE_CHECKING:  # planning imports every step, and needs no machine
    from harness.bare.session import BareSession

#: Descriptors as scenarios call them.
_TYPES: Mapping[str, DescriptorType] = {kind.name.lower().replace("_", "-"): kind for kind in DescriptorType}

#: What makes each of them a good one; `status_address` comes from the machine.
_GOOD: Mapping[DescriptorType, Mapping[str, int]] = {
    DescriptorType.CONTEXT_CACHE: {"granularity": Granularity.GLOBAL},
    DescriptorType.IOTLB: {"granularity": Granularity.GLOBAL},
    DescriptorType.WAIT: {"status_write": 1, "status_data": 1},
    DescriptorType.PASID_IOTLB: {"granularity": Granularity.DOMAIN},
    DescriptorType.PASID_CACHE: {"granularity": Granularity.SELECTIVE},
}


class _AnyDescriptor(Descriptor):
    """A descriptor of a type that there is not, or that has no structure here."""

    type = Bits(3, 0)
    type_high = Bits(11, 9)


def _number(value: object) -> object:
    return parse_address(value) if isinstance(value, str) else value


Number = Annotated[int, BeforeValidator(_number)]


class InvalidateBody(Section):
    """One descriptor and what is wrong with it, or a queue that is wrong by itself."""

    descriptor: str | Annotated[int, Field(ge=0, le=0x7F)] = Field(
        default="iotlb",
        description=f"Its type: {', '.join(f'`{name}`' for name in _TYPES)}, or a number. It is a good one by itself.",
    )
    set: dict[str, Number] = Field(default={}, description="Fields of it that are set to other values.")
    bit: Annotated[int, Field(ge=0, le=255)] | None = Field(
        default=None, description="A bit of it that is set, reserved ones too."
    )
    width: Literal[128, 256] = Field(default=128, description="Bits of each descriptor in the queue (IQA.DW).")
    tail: Annotated[int, Field(ge=0, le=0x7FFFF)] | None = Field(
        default=None, description="Where the tail is set to, in bytes, instead of behind the descriptor."
    )
    queue: Literal["memory", "hole"] = Field(
        default="memory",
        description="Where the queue lies: `hole` is an address without memory. QEMU never lets go of such a queue, so "
        "nothing is mended, and no other `invalidate` can follow.",
    )

    @model_validator(mode="after")
    def _check_whole(self) -> Self:
        if isinstance(self.descriptor, str) and self.descriptor not in _TYPES:
            raise complaint(
                "{written} is not a type of descriptor",
                value=self.descriptor, at=("descriptor",), word=self.descriptor, choices=_TYPES, plural="types",
            )  # fmt: skip
        fields = self.structure.fields()
        for name, value in self.set.items():
            if name not in fields:
                text = f"'{name}' is not a field of this descriptor"
                raise complaint(text, at=("set", name), on_key=True, word=name, choices=fields, plural="fields")
            if value & ~fields[name].largest:
                raise complaint(f"{{written}} does not fit into bits {fields[name]}", value=value, at=("set", name))
        if self.bit is not None and self.bit >= self.width:
            raise complaint(f"a descriptor of this queue has {self.width} bits", value=self.bit, at=("bit",))
        return self

    @property
    def number(self) -> int:
        """The number of its type."""
        return self.descriptor if isinstance(self.descriptor, int) else _TYPES[self.descriptor]

    @property
    def structure(self) -> type[Structure]:
        """What it is made of."""
        known = {int(kind): structure for kind, structure in DESCRIPTORS.items()}
        return known.get(self.number, _AnyDescriptor)

    def encoded(self, status_word: int) -> bytes:
        """Give its bytes; a wait descriptor writes its status at `status_word`."""
        given = dict(_GOOD.get(DescriptorType(self.number), {})) if isinstance(self.descriptor, str) else {}
        if self.number == DescriptorType.WAIT:
            given["status_address"] = status_word
        whole = self.structure.of(type=self.number & 0xF, type_high=self.number >> 4, **given).replaced(**self.set)
        raw = whole.raw | (0 if self.bit is None else 1 << self.bit)
        return raw.to_bytes(self.width // 8, "little")


class Invalidate(Step, keyword="invalidate"):
    """Provoke an error of the invalidation queue on a bare machine.

    The queue takes a good descriptor first, which is the positive control. Then comes the bad one: `blocked` means that
    the unit reports a queue error and stops with its head on it, `landed` that it takes it. Once it is mended, the
    queue must go on.
    """

    machine_kind: ClassVar[MachineKind] = "bare"

    invalidate: InvalidateBody
    expect: Expectation = Field(
        description="`blocked` (a queue error, the head stands on it), `landed` (taken), `silent` (neither), or, where "
        "QEMU deviates, `{spec: ONE, qemu: OTHER, since: VERSION, until: VERSION, why: CAUSE}`."
    )

    @model_validator(mode="after")
    def _check_reason(self) -> Self:
        """A queue error has no reason of its own."""
        for where, behaviour in behaviours(self.expect):
            if isinstance(behaviour, Blocked) and behaviour.blocked.reason:
                raise complaint("a queue error has no 'reason'", at=("expect", *where, "blocked", "reason"))
        return self

    @property
    def expects_block(self) -> bool:
        """Whether the specification asks for a queue error."""
        return expects_block(self.expect)

    @property
    def is_control(self) -> bool:
        """It holds one."""
        return True

    @property
    def breaks_tables(self) -> bool:
        """Unbroken, it is a good descriptor."""
        return True

    def summary(self) -> str:
        """Say in a line what is done."""
        body = self.invalidate
        words = [f"a {body.width}-bit descriptor '{body.descriptor}'"]
        words += [f"{name}={value:#x}" for name, value in body.set.items()]
        if body.bit is not None:
            words.append(f"bit {body.bit} set")
        if body.tail is not None:
            words.append(f"tail {body.tail:#x}")
        if body.queue == "hole":
            words.append("in a queue without memory")
        return ", ".join(words)

    def run(self, session: BareSession) -> None:
        """Submit a good, the bad and a good descriptor, and record what the unit makes of each."""
        body = self.invalidate
        session.lay()
        session.record("recipe", bits=body.width, unbroken=session.unbroken)
        good = Submission(good_descriptor(body.width))
        bad = good
        if not session.unbroken:
            bad = Submission(body.encoded(session.status_word), tail=body.tail, in_hole=body.queue == "hole")
        submit(session, good, "control")
        submit(session, bad, "attack")
        if not bad.in_hole:
            mend(session, good)

    def judge(self, evidence: StepEvidence) -> Judgement:
        """Weigh what the unit made of the three descriptors."""
        asked = expected(self.expect, None, evidence.qemu)
        return judge_queue(evidence, self.summary(), asked, mended=self.invalidate.queue == "memory")
