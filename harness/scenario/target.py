"""Where a DMA is aimed, as scenarios write it: a buffer or canary, an offset into one, or an address that is mapped."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import PlainValidator, WithJsonSchema

from harness.address_book import AimedAt
from harness.scenario.section import complaint
from harness.session import AttachedDevice, Session

_TARGET = re.compile(r"(?P<name>[a-z][a-z0-9_-]{0,62})(?: ?\+ ?(?P<offset>0x[0-9a-fA-F]{1,8}|[0-9]{1,9}))?")


@dataclass(frozen=True, slots=True)
class Target:
    """`name` and `offset` of a buffer or canary, or, where `name` is None, the I/O virtual address `offset`."""

    name: str | None
    offset: int

    def aim(self, session: Session, device: AttachedDevice, length: int) -> AimedAt:
        """Find the address `device` must use, and the bytes in the guest's memory that will tell the outcome."""
        if self.name is None:
            return session.book.aim_at(device.domain, self.offset, length)
        return session.book.aim(device.domain, self.name, self.offset, length)

    def __str__(self) -> str:
        if self.name is None:
            return f"{self.offset:#x}"
        return f"{self.name}+{self.offset:#x}" if self.offset else self.name


def parse_target(value: Any) -> Target:
    """Read `victim`, `own+0x1000` or `0x100000`."""
    if isinstance(value, Target):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 64:
        return Target(None, value)
    match = _TARGET.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        hint = "write e.g. victim, own+0x1000 or 0x100000"
        raise complaint("{written} is not a place to aim a DMA at", value=value, suggestion=hint)
    return Target(match["name"], int(match["offset"] or "0", 0))


TargetField = Annotated[
    Target,
    PlainValidator(parse_target),
    WithJsonSchema(
        {
            "anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": f"^{_TARGET.pattern}$"}],
            "description": "A buffer or canary, with an offset if need be (own+0x1000), or an address that is mapped.",
        }
    ),
]
