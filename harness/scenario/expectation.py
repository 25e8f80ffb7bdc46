"""What a scenario expects of a DMA: that it landed, or that the remapping unit blocked it for a stated reason."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from harness.scenario.section import Section, complaint
from harness.vtd.faults import REASON_BY_NAME, Access

#: What a second-stage table answers where nothing is mapped (VT-d spec, fault reasons 5 and 6).
DEFAULT_REASON = {Access.WRITE: "pte-write", Access.READ: "pte-read"}


def _check_reason(value: Any) -> Any:
    if value not in REASON_BY_NAME:
        raise complaint(
            "{written} is not a fault reason", value=value, word=str(value), choices=REASON_BY_NAME, plural="reasons"
        )
    return value


def _listed(value: Any) -> Any:
    return value if isinstance(value, (list, tuple)) or value is None else (value,)


Reason = Annotated[str, BeforeValidator(_check_reason)]


class BlockedBody(Section):
    """Why the unit refuses it."""

    reason: Annotated[tuple[Reason, ...] | None, BeforeValidator(_listed)] = Field(
        default=None,
        description="The fault reason, or a list of those that will do; pte-write or pte-read if not given.",
    )


class Blocked(Section):
    """The DMA is refused and reported, and its target stays as it was."""

    blocked: BlockedBody

    def codes(self, access: Access) -> tuple[int, ...]:
        """Give the reason codes that will do for a DMA of this direction."""
        names = self.blocked.reason or (DEFAULT_REASON[access],)
        return tuple(REASON_BY_NAME[name].code for name in names)


def _expand(value: Any) -> Any:
    return {"blocked": {}} if value == "blocked" else value


DmaExpectation = Annotated[Literal["landed"] | Blocked, BeforeValidator(_expand)]
