"""What a scenario expects of a DMA, an interrupt or a queue: what the specification says, and known deviations from it.

A plain expectation is what the specification asks for. A deviation tells both: that, and what QEMU does instead, in
which versions and why; see `harness.conformance` for how what was seen is held against it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, Tag, WithJsonSchema, model_validator

import harness.conformance as plain
from harness.conformance import Expected
from harness.scenario.section import Section, complaint
from harness.scenario.version import Version, in_range
from harness.vtd.faults import REASON_BY_NAME, Access, Mode

#: What a second-stage table answers where nothing is mapped (VT-d spec, fault reasons 5 and 6).
DEFAULT_REASON = {Access.WRITE: "pte-write", Access.READ: "pte-read"}

#: What may stand beside a step that has one, for its field's description.
EXPECTATION = (
    "`landed`, `{blocked: {reason: NAME or NAMES}}`, `blocked` (pte-write or pte-read), `silent` (refused without a "
    "report), or, where QEMU deviates, `{spec: ONE, qemu: OTHER, since: VERSION, until: VERSION, why: CAUSE}`."
)

_WORDS = ("landed", "blocked", "silent")
_DEVIATION_KEYS = ("spec", "qemu", "since", "until", "why")


#: A reason as the kernel prints it: `[fault reason 0x05] PTE Write access is not set`, or a part of that.
_PRINTED = re.compile(r"(?:.*reason )?(?P<code>0x[0-9a-f]+|[0-9]+)?\]? ?(?P<text>.*)", re.IGNORECASE)


def _printed(value: Any) -> str | None:
    """The name of the reason that the kernel prints like `value`; the text counts, where there is one."""
    match = _PRINTED.fullmatch(str(value).strip())
    if match is None or isinstance(value, bool):
        return None
    text = match["text"].strip().casefold()
    by_text = [n for n, reason in REASON_BY_NAME.items() if text == reason.kernel_text.casefold() != "unknown"]
    if text or match["code"] is None:
        return by_text[0] if by_text else None
    digits = match["code"].lower()
    code = int(digits, 16) if digits.startswith("0x") else int(digits)
    return next((name for name, reason in REASON_BY_NAME.items() if reason.code == code), None)


def _check_reason(value: Any) -> Any:
    if not isinstance(value, str) or value not in REASON_BY_NAME:
        meant = _printed(value)
        raise complaint(
            "{written} is not a fault reason",
            value=value,
            suggestion=f"did you mean '{meant}'?" if meant else None,
            word=str(value),
            choices=REASON_BY_NAME,
            plural="reasons",
        )
    return value


def _listed(value: Any) -> Any:
    return value if isinstance(value, (list, tuple)) or value is None else (value,)


Reason = Annotated[
    str, BeforeValidator(_check_reason), WithJsonSchema({"type": "string", "enum": sorted(REASON_BY_NAME)})
]


class BlockedBody(Section):
    """Why the unit refuses it."""

    reason: Annotated[tuple[Reason, ...] | None, BeforeValidator(_listed)] = Field(
        default=None,
        description="The fault reason, or a list of those that will do; pte-write or pte-read if not given.",
    )
    blames: Literal["device", "nobody"] = Field(
        default="device", description="Whom the report names: the device, or nobody (requester ID 0xffff)."
    )
    index: Annotated[int, Field(ge=0, le=0xFFFF)] | None = Field(
        default=None, description="The interrupt index that the report tells, where that is not the request's."
    )


class Blocked(Section):
    """It is refused and reported, and its target stays as it was."""

    blocked: BlockedBody

    def codes(self, access: Access) -> tuple[int, ...]:
        """Give the reason codes that will do for a DMA of this direction."""
        return tuple(REASON_BY_NAME[name].code for name in self.names(access))

    def names(self, access: Access) -> tuple[str, ...]:
        """Give the reasons that will do for a DMA of this direction."""
        return self.blocked.reason or (DEFAULT_REASON[access],)


def _expand(value: Any) -> Any:
    """`blocked` written out; a complaint for what is no behaviour, nor the keys of one."""
    if value == "blocked":
        return {"blocked": {}}
    if isinstance(value, str) and value not in _WORDS:
        raise complaint("{written} is not a behaviour", value=value, word=value, choices=_WORDS, plural="behaviours")
    if not isinstance(value, str | dict | Section):
        raise complaint("{written} is not a behaviour", value=value, choices=_WORDS, plural="behaviours")
    return value


def _tag(value: Any) -> str:
    """Which kind of expectation is written; the words are no keys of a scenario, so that no place is named twice."""
    if isinstance(value, Deviation) or (isinstance(value, dict) and any(key in value for key in _DEVIATION_KEYS)):
        return "<deviation>"
    return "<word>" if isinstance(value, str) else "<refusal>"


_Word = Annotated[Literal["landed", "silent"], Tag("<word>")]
_Refusal = Annotated[Blocked, Tag("<refusal>")]

#: `landed`, `silent` (refused without a report) or `blocked` with its reason.
Behaviour = Annotated[_Word | _Refusal, Discriminator(_tag), BeforeValidator(_expand)]


class Versions(Section):
    """The QEMU versions of a deviation, and why there is one."""

    since: Version | None = Field(default=None, description="The first QEMU version that does so; all if not given.")
    until: Annotated[tuple[Version, ...], BeforeValidator(_listed)] = Field(
        default=(),
        description="The version that no longer does so, or a list with one of each stable series it was mended in.",
    )
    why: Annotated[str, Field(min_length=1)] = Field(description="The cause, in a sentence: QEMU's function or commit.")

    def cover(self, qemu: str) -> bool:
        """Whether the QEMU of this version is known to deviate so."""
        return in_range(qemu, self.since, self.until)


class Deviation(Versions):
    """The specification asks for one thing, and QEMU is known to do another."""

    spec: Behaviour = Field(description="What the specification asks for.")
    qemu: Behaviour = Field(description="What QEMU does instead.")

    @model_validator(mode="after")
    def _check_difference(self) -> Self:
        if self.spec == self.qemu:
            raise complaint("this is what 'spec' says, so nothing deviates", at=("qemu",))
        return self


#: What is expected of something provoked: a behaviour, or two of them where QEMU deviates.
Expectation = Annotated[
    _Word | _Refusal | Annotated[Deviation, Tag("<deviation>")], Discriminator(_tag), BeforeValidator(_expand)
]


def expected(expectation: str | Blocked | Deviation, access: Access | None, qemu: str) -> Expected:
    """Give what to hold a request of this direction against, on the QEMU of this version; None for a queue's."""
    if isinstance(expectation, Deviation):
        return Expected(
            spec=_plain(expectation.spec, access),
            qemu=_plain(expectation.qemu, access),
            known=expectation.cover(qemu),
            why=expectation.why,
        )
    return Expected(spec=_plain(expectation, access))


def expects_block(expectation: str | Blocked | Deviation) -> bool:
    """Whether the specification asks for a refusal, reported or not."""
    return (expectation.spec if isinstance(expectation, Deviation) else expectation) != "landed"


def refuse_other_direction(expectation: str | Blocked | Deviation, access: Access) -> None:
    """Complain of a reason that no request of this direction is refused for: want of the other permission."""
    other = Access.READ if access is Access.WRITE else Access.WRITE
    for where, behaviour in behaviours(expectation):
        for name in (behaviour.blocked.reason or ()) if isinstance(behaviour, Blocked) else ():
            if name.endswith(f"-{other}"):
                meant = f"{name.removesuffix(other)}{access}"
                hint = f"did you mean '{meant}'?" if meant in REASON_BY_NAME else None
                at = ("expect", *where, "blocked", "reason")
                raise complaint(f"a {access} is never refused for '{name}'", at=at, suggestion=hint)


def refuse_other_than_interrupts(expectation: str | Blocked | Deviation) -> None:
    """Complain of a behaviour that no interrupt has under Linux, or that nothing could tell there."""
    for where, behaviour in behaviours(expectation):
        at = ("expect", *where)
        if behaviour == "silent":
            raise complaint("nothing tells a refused interrupt that is not reported from one never sent", at=at)
        for name in (behaviour.blocked.reason or ("none",)) if isinstance(behaviour, Blocked) else ():
            if name not in REASON_BY_NAME or REASON_BY_NAME[name].mode is not Mode.INTERRUPT:
                hint = "those of interrupts begin with 'ir-'"
                raise complaint("an interrupt is refused for a reason of its own", at=at, suggestion=hint)


def _plain(written: str | Blocked, access: Access | None) -> plain.Behaviour:
    if isinstance(written, Blocked) and access is None:
        return plain.Behaviour("blocked")
    if isinstance(written, Blocked) and access is not None:
        nobody = written.blocked.blames == "nobody"
        return plain.Behaviour("blocked", written.codes(access), nobody=nobody, index=written.blocked.index)
    return plain.Behaviour("landed" if written == "landed" else "silent")


def behaviours(expectation: str | Blocked | Deviation) -> Iterator[tuple[tuple[str, ...], str | Blocked]]:
    """Give each behaviour that is written, with the way to it from the expectation."""
    if isinstance(expectation, Deviation):
        yield ("spec",), expectation.spec
        yield ("qemu",), expectation.qemu
    else:
        yield (), expectation
