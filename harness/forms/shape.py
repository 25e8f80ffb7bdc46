"""What a form is made of: fields with strict types, some of which may be left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, create_model

from harness.vtd.source_id import SourceId


def _source_id(text: str) -> str:
    SourceId.parse(text)
    return text


def _whole_bytes(text: str) -> str:
    bytes.fromhex(text)
    return text


#: A PCI address; bytes in hexadecimal digits; a number in them, with its `0x`.
Source = Annotated[str, AfterValidator(_source_id)]
HexBytes = Annotated[str, Field(pattern=r"^[0-9a-f]*$"), AfterValidator(_whole_bytes)]
HexNumber = Annotated[str, Field(pattern=r"^0x[0-9a-f]+$")]
Direction = Annotated[str, Field(pattern=r"^(read|write)$")]
DmaDirection = Annotated[str, Field(pattern=r"^(to|from)-memory$")]
By = Annotated[str, Field(pattern=r"^(msi|dma)$")]
Vector = Annotated[int, Field(ge=0, le=255)]
#: A digest is only ever compared.
Digest = str
#: A count, an address, a register: never negative.
Number = Annotated[int, Field(ge=0)]
#: Seconds since the epoch, or of a duration.
Seconds = Annotated[float, Field(ge=0)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, protected_namespaces=())


@dataclass(frozen=True, slots=True)
class Maybe:
    """A field that may be left out, for old or other recordings; it may not be null for that."""

    type: Any


def shape(**fields: Any) -> Any:
    """Give the type of an object with these fields; others may stand there too."""
    made: dict[str, Any] = {}
    for number, (name, kind) in enumerate(fields.items()):
        optional = isinstance(kind, Maybe)
        given = Field(alias=name, default=None) if optional else Field(alias=name)
        made[f"field_{number}"] = (kind.type if optional else kind, given)
    return create_model("Shape", __base__=_Strict, **made)


def either(kind: Any) -> Any:
    """Give the type of what is of `kind` or null."""
    return kind | None


def many(kind: Any) -> Any:
    """Give the type of a list."""
    return Sequence[kind]


def named(kind: Any) -> Any:
    """Give the type of an object whose keys somebody chose."""
    return dict[str, kind]


def exactly(count: int, kind: Any) -> Any:
    """Give the type of a list of so many."""
    return Annotated[Sequence[kind], Field(min_length=count, max_length=count)]
