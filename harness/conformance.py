"""How what was seen relates to what was asked for: as the specification says, as QEMU is known to do, or neither.

Pure data: behaviours without their spelling in scenarios.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from harness.verdict import Conformance
from harness.vtd.faults import REASON_BY_CODE, describe


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What became of a request: it landed, was blocked and reported for one of `reasons`, or was silently refused.

    `reasons` are codes; a behaviour that was seen has one, one that is asked for may leave a choice, or leave it open
    with none (an invalidation queue reports no reason). `nobody` tells a report that does not name the requester,
    `index` is the interrupt index of a report that tells another one than the request's.
    """

    kind: Literal["landed", "blocked", "silent"]
    reasons: tuple[int, ...] = ()
    nobody: bool = False
    index: int | None = None

    def covers(self, seen: Behaviour) -> bool:
        """Whether `seen` is this, or one of the choices this leaves."""
        if self.kind != seen.kind:
            return False
        if self.kind != "blocked":
            return True
        told = (self.nobody, self.index) == (seen.nobody, seen.index)
        return told and (not self.reasons or set(seen.reasons) <= set(self.reasons))

    @property
    def report(self) -> str:
        """The names of the reasons; `landed` for what went through, and empty for what was silently refused."""
        if self.kind == "landed":
            return "landed"
        return " or ".join(_name(code) for code in self.reasons)

    def __str__(self) -> str:
        if self.kind == "silent":
            return "refused without a report"
        if self.kind == "landed":
            return "landed"
        reasons = " or ".join(map(describe, self.reasons))
        said = f"blocked, reason {reasons}" if reasons else "blocked"
        said += ", blamed on nobody" if self.nobody else ""
        return said if self.index is None else f"{said}, told of index {self.index}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What the specification asks for, and what QEMU is known to do instead.

    `qemu` is None where no deviation is stated; `known` is whether it is stated for the QEMU version at hand, and `why`
    its cause.
    """

    spec: Behaviour
    qemu: Behaviour | None = None
    known: bool = False
    why: str = ""

    def compare(self, seen: Behaviour) -> Conformance:
        """Tell how `seen` relates to it; what the specification asks for goes first."""
        if self.spec.covers(seen):
            return Conformance.AS_SPEC
        if self.known and self.qemu is not None and self.qemu.covers(seen):
            return Conformance.KNOWN_DEVIATION
        return Conformance.NEW_DEVIATION

    @property
    def allowed(self) -> tuple[Behaviour, ...]:
        """What will do: the specification's, and QEMU's where it is known to differ."""
        return (self.spec, self.qemu) if self.known and self.qemu is not None else (self.spec,)

    def __str__(self) -> str:
        if self.qemu is None:
            return str(self.spec)
        other = "" if self.known else ", but not this version"
        return f"{self.spec} (QEMU is known for: {self.qemu}{other})"


def _name(code: int) -> str:
    reason = REASON_BY_CODE.get(code)
    return reason.name if reason is not None else f"{code:#04x}"
