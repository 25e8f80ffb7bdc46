"""Structures of VT-d as bit fields: one immutable number each, with named fields that are read and replaced.

class RootEntry(Structure):
    SIZE = 16
    SPEC = "9.1"
    present = Bits(0, 0)
    context_table = Address(63, 12)
    RESERVED = (Bits(11, 1), Bits(127, 64))

RootEntry.of(present=1, context_table=0x101000).encode()
RootEntry.decode(data).present
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self, overload


@dataclass(frozen=True, slots=True)
class Bits:
    """Bits `high` to `low` (both included, 0 is the least significant of the whole structure).

    With `shift`, a value is that of the bits shifted left by it: an address is stored without its low bits.
    """

    high: int
    low: int
    shift: int = 0

    @property
    def mask(self) -> int:
        """The bits in place."""
        return ((1 << (self.high - self.low + 1)) - 1) << self.low

    @property
    def largest(self) -> int:
        """The largest value that fits."""
        return (self.mask >> self.low) << self.shift

    def extract(self, raw: int) -> int:
        """Give the value that `raw` holds."""
        return ((raw & self.mask) >> self.low) << self.shift

    def insert(self, raw: int, value: int) -> int:
        """Give `raw` with `value` in place; ValueError for one that does not fit."""
        if value < 0 or value & ~self.largest:
            raise ValueError(f"{value:#x} does not fit into bits {self}")
        return raw & ~self.mask | (value >> self.shift) << self.low

    @overload
    def __get__(self, instance: None, owner: type[Structure]) -> Self: ...

    @overload
    def __get__(self, instance: Structure, owner: type[Structure]) -> int: ...

    def __get__(self, instance: Structure | None, owner: type[Structure]) -> Self | int:
        return self if instance is None else self.extract(instance.raw)

    def __str__(self) -> str:
        return f"{self.high}:{self.low}" if self.high != self.low else str(self.low)


def Address(high: int, low: int) -> Bits:  # noqa: N802 - reads as the kind of field it makes
    """Bits that hold an address without its low bits, which are zero; `low % 64` tells how many those are."""
    return Bits(high, low, low % 64)


@dataclass(frozen=True, slots=True)
class Structure:
    """A structure of `SIZE` bytes, little-endian, as the number `raw`; `SPEC` is its section of the VT-d spec."""

    raw: int = 0

    SIZE: ClassVar[int] = 0
    SPEC: ClassVar[str] = ""
    #: Bits that must be zero in every implementation; what an implementation adds depends on its address width.
    RESERVED: ClassVar[tuple[Bits, ...]] = ()

    @classmethod
    def fields(cls) -> dict[str, Bits]:
        """Give the named fields, in the order of their definition."""
        return {name: value for name, value in vars(cls).items() if isinstance(value, Bits)}

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read the structure; ValueError for data of another length."""
        if len(data) != cls.SIZE:
            raise ValueError(f"{cls.__name__} has {cls.SIZE} bytes, not {len(data)}")
        return cls(int.from_bytes(data, "little"))

    @classmethod
    def of(cls, **values: int) -> Self:
        """Make one with these fields set and all others zero; ValueError for a value that does not fit."""
        return cls().replaced(**values)

    def replaced(self, **values: int) -> Self:
        """Give it with other values; ValueError for one that does not fit, KeyError for a field it does not have."""
        raw, fields = self.raw, self.fields()
        for name, value in values.items():
            raw = fields[name].insert(raw, value)
        return type(self)(raw)

    def encode(self) -> bytes:
        """Give its bytes."""
        return self.raw.to_bytes(self.SIZE, "little")

    def values(self) -> dict[str, int]:
        """Give all fields by name."""
        return {name: bits.extract(self.raw) for name, bits in self.fields().items()}

    def reserved_set(self) -> tuple[Bits, ...]:
        """Give the reserved fields that are not zero."""
        return tuple(bits for bits in self.RESERVED if bits.extract(self.raw))

    def __str__(self) -> str:
        said = " ".join(f"{name}={value:#x}" for name, value in self.values().items() if value)
        return f"{type(self).__name__}({said})"
