"""What a plain scalar means: integers, booleans and null of YAML 1.2's core schema, otherwise the author's text.

Narrower than the core schema where this field would be bitten: no floats (`10.0` is a version, `1e3` and `00:02.0` are
names), only lower-case `true` and `false`, no leading zeros, no digit separators.
"""

from __future__ import annotations

import re

#: What a scalar can hold.
Plain = str | int | bool | None

_DECIMAL = re.compile(r"[-+]?(0|[1-9][0-9]{0,39})")
_HEXADECIMAL = re.compile(r"0x[0-9a-fA-F]{1,32}")
_OCTAL = re.compile(r"0o[0-7]{1,32}")
_WORDS: dict[str, Plain] = {"true": True, "false": False, "null": None, "~": None, "": None}

#: Text that YAML 1.1 reads as octal and a human as decimal.
LEADING_ZERO = re.compile(r"[-+]?0[0-9]+")


def resolve(text: str) -> Plain:
    """The value of a plain (unquoted) scalar."""
    if text in _WORDS:
        return _WORDS[text]
    if _DECIMAL.fullmatch(text):
        return int(text)
    if _HEXADECIMAL.fullmatch(text):
        return int(text, 16)
    if _OCTAL.fullmatch(text):
        return int(text[2:], 8)
    return text
