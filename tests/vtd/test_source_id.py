"""Requester IDs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.vtd.source_id import SourceId


@given(st.integers(0, 0xFFFF))
def test_what_is_printed_is_read_back(value):
    assert SourceId.parse(str(SourceId(value))) == SourceId(value)


@pytest.mark.parametrize(("text", "value"), [("01:00.0", 0x100), ("0000:ff:1f.7", 0xFFFF), ("0x00:0x02.0", 0x10)])
def test_the_spellings_of_the_field_are_read(text, value):
    assert SourceId.parse(text).value == value


@pytest.mark.parametrize(
    "text", ["", "01:00", "01:20.0", "01:00.8", "g1:00.0", "01:00.0 x", "123:00:00.0", "123456789:00:00.0"]
)
def test_what_is_no_pci_address_is_refused(text):
    with pytest.raises(ValueError, match="PCI"):
        SourceId.parse(text)
