from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from harness.scenario import values


def read(kind: Any, value: Any) -> Any:
    return TypeAdapter(kind).validate_python(value)


@pytest.mark.parametrize(
    ("kind", "given", "meaning"),
    [
        (values.Size, 0, 0),
        (values.Size, "512", 512),
        (values.Size, "4K", 4096),
        (values.Size, "4KiB", 4096),
        (values.Size, "2 MiB", 2 << 20),
        (values.Size, "1G", 1 << 30),
        (values.Size, "7B", 7),
        (values.Address, 0xFEE00000, 0xFEE00000),
        (values.Address, "0xfFfFfFfFfFfFfFfF", (1 << 64) - 1),
        (values.OnOff, "on", "on"),
        (values.OnOff, False, "off"),
        (values.Access, "read-write", "rw"),
        (values.Access, "w", "w"),
        (values.Name, "left-memory_2", "left-memory_2"),
    ],
)
def test_meaning(kind, given, meaning):
    assert read(kind, given) == meaning


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        (values.Size, -1),
        (values.Size, True),
        (values.Size, "4KB"),
        (values.Size, "4iB"),
        (values.Size, "4.5K"),
        (values.Size, ""),
        (values.Size, None),
        (values.Size, "9" * 99),
        (values.Address, 1 << 64),
        (values.Address, -1),
        (values.Address, "1000"),
        (values.Address, False),
        (values.OnOff, "yes"),
        (values.OnOff, 1),
        (values.Access, "x"),
        (values.Access, ("r",)),
        (values.Name, "2nd"),
        (values.Name, "a" * 64),
        (values.Name, "a,b=c"),
        (values.Slug, "../x"),
        (values.Slug, "A"),
    ],
)
def test_refusal(kind, given):
    with pytest.raises(ValidationError):
        read(kind, given)
