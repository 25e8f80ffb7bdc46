"""An edit of a table entry or a table register: how a scenario breaks what the remapping unit walks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from harness.machine.spec import HOLE, ROM_TABLE, Translation
from harness.scenario.section import Section, complaint
from harness.scenario.values import parse_address
from harness.vtd.interrupts import INTERRUPT_RANGE, InterruptRemapEntry
from harness.vtd.registers import InterruptRemapTableAddress, RootTableAddress
from harness.vtd.structure import Structure
from harness.vtd.tables import (
    ContextEntry,
    FirstStageEntry,
    PasidDirectoryEntry,
    PasidEntry,
    RootEntry,
    ScalableContextEntry,
    ScalableRootEntry,
    SecondStageEntry,
)

Entry = Literal[
    "root", "context", "pasid-directory", "pasid", "level-5", "level-4", "level-3", "level-2", "level-1", "leaf",
    "irte", "rtaddr", "irta",
]  # fmt: skip

#: Addresses that have names: no memory, the interrupt range, and a page of paging entries in read-only memory.
WORDS: Mapping[str, int] = {"hole": HOLE, "interrupts": INTERRUPT_RANGE.start, "rom": ROM_TABLE}

_PAGING: tuple[type[Structure], ...] = (SecondStageEntry, FirstStageEntry)
_STRUCTURES: Mapping[str, tuple[type[Structure], ...]] = {
    "root": (RootEntry, ScalableRootEntry),
    "context": (ContextEntry, ScalableContextEntry),
    "pasid-directory": (PasidDirectoryEntry,),
    "pasid": (PasidEntry,),
    **dict.fromkeys(("level-5", "level-4", "level-3", "level-2", "level-1", "leaf"), _PAGING),
    "irte": (InterruptRemapEntry,),
    "rtaddr": (RootTableAddress,),
    "irta": (InterruptRemapTableAddress,),
}

S = TypeVar("S", bound=Structure)


def _parse_value(value: Any) -> int | str:
    if isinstance(value, str) and value in WORDS:
        return value
    if isinstance(value, str) and not value.startswith("0x"):
        raise complaint("{written} is not a value", value=value, word=value, choices=WORDS, plural="words")
    return parse_address(value)


EditValue = Annotated[
    int | str,
    BeforeValidator(_parse_value),
    WithJsonSchema(
        {
            "anyOf": [{"type": "integer", "minimum": 0}, {"enum": list(WORDS)}, {"type": "string", "pattern": "^0x"}],
        }
    ),
]


class Edit(Section):
    """One field, or one bit, of one entry on the way of a device's requests, or of a register that names a table."""

    entry: Entry = Field(
        description="Which entry: `leaf` is the one that ends the walk, `rtaddr` and `irta` are registers."
    )
    field: str | None = Field(default=None, description="A field of it, as `harness.vtd` names them.")
    bit: Annotated[int, Field(ge=0, le=511)] | None = Field(
        default=None, description="Or a single bit of it, 0 being the least significant; reserved ones too."
    )
    value: EditValue = Field(
        description="What is put there: a number, or `hole` (an address without memory), `interrupts` (0xfee00000) or "
        "`rom` (a page of paging entries that cannot be written)."
    )

    @model_validator(mode="after")
    def _check_whole(self) -> Self:
        known = _STRUCTURES[self.entry]
        if (self.field is None) == (self.bit is None):
            raise complaint("an edit needs either 'field' or 'bit'", on_key=True)
        if self.field is not None and not any(self.field in kind.fields() for kind in known):
            names = sorted({name for kind in known for name in kind.fields()})
            raise complaint(
                f"{{written}} is not a field of the entry '{self.entry}'",
                value=self.field, at=("field",), word=self.field, choices=names, plural="fields",
            )  # fmt: skip
        if self.bit is not None and self.bit >= 8 * max(kind.SIZE for kind in known):
            raise complaint(
                f"the entry '{self.entry}' has {8 * max(kind.SIZE for kind in known)} bits",
                value=self.bit, at=("bit",),
            )  # fmt: skip
        problem = self._misfit(known)
        if problem:
            raise complaint(problem, value=self.value, at=("value",))
        return self

    def _misfit(self, known: tuple[type[Structure], ...]) -> str | None:
        """Tell why the value fits none of the structures the entry may be."""
        if self.bit is not None:
            return None if self.value in (0, 1) else "a bit is 0 or 1; found {written}"
        problems = []
        for kind in known:
            if self.field in kind.fields():
                try:
                    self.applied(kind())
                except ValueError as problem:
                    problems.append(str(problem))
                else:
                    return None
        return problems[0] if problems else None

    def structure(self, translation: Translation) -> type[Structure] | None:
        """Give what the entry is in tables of this kind, None where they have no such entry."""
        legacy, first = translation == "legacy", translation == "first-stage"
        if self.entry in ("pasid-directory", "pasid") and legacy:
            return None
        known = _STRUCTURES[self.entry]
        if self.entry in ("root", "context"):
            return known[0] if legacy else known[1]
        return known[1] if first and known is _PAGING else known[0]

    def applied(self, structure: S, words: Mapping[str, int] = WORDS) -> S:
        """Give `structure` with the edit made; ValueError if the value does not fit, KeyError for another structure."""
        value = words[self.value] if isinstance(self.value, str) else self.value
        if self.field is not None:
            return structure.replaced(**{self.field: value})
        if self.bit is None or self.bit >= 8 * structure.SIZE:
            raise KeyError(f"{type(structure).__name__} has no bit {self.bit}")
        return type(structure)(structure.raw & ~(1 << self.bit) | value << self.bit)

    @property
    def disables_reports(self) -> bool:
        """Whether it sets a Fault Processing Disable bit."""
        return self.field == "fault_processing_disable" and self.value == 1

    def __str__(self) -> str:
        value = self.value if isinstance(self.value, str) or self.value < 10 else f"{self.value:#x}"
        return f"{self.entry}.{self.field if self.field is not None else self.bit}={value}"


def _listed(value: Any) -> Any:
    return (value,) if isinstance(value, dict | Edit) else value


#: One edit or a list of them.
Edits = Annotated[tuple[Edit, ...], BeforeValidator(_listed)]
