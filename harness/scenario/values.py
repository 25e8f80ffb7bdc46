"""The value types of scenario files, each written the way its field writes it.

Bytes are ints, durations float seconds; names, addresses of devices and MACs stay the author's text.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, WithJsonSchema

from harness.scenario.section import complaint

_BINARY = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SIZE = re.compile(r"([0-9]{1,15}) ?([KMGT]?)(iB|B)?")
_HEX = re.compile(r"0x[0-9a-fA-F]{1,16}")
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_SLUG = re.compile(r"[a-z0-9][a-z0-9_-]{0,78}")
_ACCESS: dict[str, Literal["r", "w", "rw"]] = {
    "r": "r", "read": "r", "w": "w", "write": "w", "rw": "rw", "read-write": "rw",
}  # fmt: skip

_ADDRESS_LIMIT = 1 << 64

#: The smallest piece of memory that VT-d maps.
PAGE = 4096


def parse_size(value: Any) -> int:
    """Bytes in `64KiB`, `4K`, `2MiB` or a plain number; K, M, G and T are powers of 1024, as in QEMU."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None or (match[3] and not match[2] and match[3] != "B"):
        raise complaint(
            "{written} is not a size", value=value, suggestion="write e.g. 64KiB, 2MiB or a number of bytes"
        )
    if match[2] and match[3] == "B":
        raise complaint(
            "{written} may mean powers of 1000 or of 1024",
            value=value,
            suggestion=f"did you mean '{match[1]}{match[2]}iB'?",
        )
    return int(match[1]) * _BINARY[match[2]]


def _check_pages(value: int) -> int:
    if value == 0 or value % PAGE:
        raise complaint("{written} is not a multiple of 4 KiB", value=value, suggestion="write e.g. 4KiB or 0x100000")
    return value


def parse_address(value: Any) -> int:
    """A 64-bit address, as a number or as text in hexadecimal."""
    if isinstance(value, str) and _HEX.fullmatch(value):
        return int(value, 16)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _ADDRESS_LIMIT:
        return value
    raise complaint("{written} is not a 64-bit address", value=value, suggestion="write e.g. 0x100000")


def parse_on_off(value: Any) -> str:
    """`on` or `off`; `true` and `false` are taken for them."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if value in {"on", "off"}:
        return str(value)
    meant = {"yes": "on", "no": "off"}.get(str(value).lower(), str(value).lower())
    raise complaint(
        "{written} is neither 'on' nor 'off'", value=value, word=meant, choices=("on", "off"), plural="one of"
    )


def parse_access(value: Any) -> Literal["r", "w", "rw"]:
    """`r`, `w` or `rw`, or the same in words."""
    if isinstance(value, str) and value in _ACCESS:
        return _ACCESS[value]
    raise complaint("{written} is not an access", value=value, word=str(value), choices=_ACCESS, plural="one of")


def _text(pattern: re.Pattern[str], message: str, suggestion: str) -> BeforeValidator:
    def check(value: Any) -> str:
        if isinstance(value, str) and pattern.fullmatch(value):
            return value
        raise complaint(message, value=value, suggestion=suggestion)

    return BeforeValidator(check)


def _schema(pattern: str, description: str, *, number: bool = False) -> WithJsonSchema:
    text: dict[str, Any] = {"type": "string", "pattern": f"^(?:{pattern})$"}
    if number:
        return WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0}, text], "description": description})
    return WithJsonSchema({**text, "description": description})


Size = Annotated[
    int, BeforeValidator(parse_size), _schema("[0-9]+ ?([KMGT](iB)?|B)?", "A size, e.g. 64KiB.", number=True)
]
Address = Annotated[int, BeforeValidator(parse_address), _schema(_HEX.pattern, "A 64-bit address.", number=True)]
PageSize = Annotated[Size, AfterValidator(_check_pages)]
PageAddress = Annotated[Address, AfterValidator(_check_pages)]


def _check_words(value: Any) -> Any:
    if isinstance(value, str) and not value.strip():
        raise complaint("empty words are in every line", value=value)
    return value


#: Words to be found in a line.
Words = Annotated[str, BeforeValidator(_check_words)]

OnOff = Annotated[
    Literal["on", "off"], BeforeValidator(parse_on_off), WithJsonSchema({"enum": ["on", "off", True, False]})
]
Access = Annotated[Literal["r", "w", "rw"], BeforeValidator(parse_access), WithJsonSchema({"enum": list(_ACCESS)})]
Name = Annotated[
    str,
    _text(_NAME, "{written} is not a name", "begin with a-z, go on with a-z, 0-9, '_' and '-'"),
    _schema(_NAME.pattern, "A name: a-z, 0-9, '_' and '-', beginning with a letter."),
]
Slug = Annotated[
    str,
    _text(_SLUG, "{written} is not a slug", "use a-z, 0-9, '-' and '_'"),
    _schema(_SLUG.pattern, "Lower-case words joined by '-'."),
]
