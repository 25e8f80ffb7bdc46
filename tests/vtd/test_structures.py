"""Every structure of VT-d: its fields, its bytes, and that no two fields share a bit."""

from __future__ import annotations

import importlib
import itertools
import pkgutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

import harness.vtd
from harness.vtd.structure import Bits, Structure
from harness.vtd.tables import ContextEntry, FirstStageEntry, PasidEntry, RootEntry

for _module in pkgutil.walk_packages(harness.vtd.__path__, "harness.vtd."):
    importlib.import_module(_module.name)


def _all(kind: type[Structure]) -> list[type[Structure]]:
    return [each for sub in kind.__subclasses__() for each in (sub, *_all(sub))]


STRUCTURES = sorted(_all(Structure), key=lambda kind: kind.__qualname__)


def test_the_structures_of_the_specification_are_there():
    names = {kind.__name__ for kind in STRUCTURES}
    assert {"RootEntry", "ScalableContextEntry", "PasidEntry", "FaultRecord", "Capability", "IotlbInvalidate"} <= names
    assert len(STRUCTURES) > 30


@pytest.mark.parametrize("kind", STRUCTURES, ids=lambda kind: kind.__name__)
def test_fields_and_reserved_bits_are_inside_and_do_not_overlap(kind):
    everything = [*kind.fields().items(), *((f"reserved {bits}", bits) for bits in kind.RESERVED)]
    assert kind.SIZE in {1, 4, 8, 12, 16, 20, 32, 64}
    assert kind.SPEC
    for name, bits in everything:
        assert 0 <= bits.low <= bits.high < 8 * kind.SIZE, name
    for (one, a), (other, b) in itertools.combinations(everything, 2):
        assert not a.mask & b.mask, f"{one} and {other} share bits"


@pytest.mark.parametrize("kind", STRUCTURES, ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_what_is_encoded_is_decoded(kind, data):
    raw = data.draw(st.integers(0, (1 << 8 * kind.SIZE) - 1))
    entry = kind(raw)
    assert kind.decode(entry.encode()) == entry
    assert len(entry.encode()) == kind.SIZE
    assert kind(raw & sum(bits.mask for bits in kind.fields().values())) == kind.of(**entry.values())


@pytest.mark.parametrize("kind", STRUCTURES, ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_a_replaced_field_is_read_back_and_all_others_stay(kind, data):
    entry = kind(data.draw(st.integers(0, (1 << 8 * kind.SIZE) - 1)))
    name = data.draw(st.sampled_from(sorted(kind.fields())))
    bits = kind.fields()[name]
    value = data.draw(st.integers(0, bits.largest >> bits.shift)) << bits.shift
    changed = entry.replaced(**{name: value})
    assert getattr(changed, name) == value
    assert changed.raw & ~bits.mask == entry.raw & ~bits.mask


@pytest.mark.parametrize(
    ("name", "value"), [("present", 2), ("present", -1), ("context_table", 0x1234), ("context_table", 1 << 64)]
)
def test_a_value_that_does_not_fit_is_refused(name, value):
    with pytest.raises(ValueError, match="does not fit"):
        RootEntry.of(**{name: value})


def test_an_unknown_field_and_a_wrong_length_are_refused():
    with pytest.raises(KeyError):
        RootEntry.of(presence=1)
    with pytest.raises(ValueError, match="has 16 bytes, not 8"):
        RootEntry.decode(bytes(8))


def test_bytes_of_real_tables_are_read():
    # As Linux 6.12 wrote them: a context entry of domain 7 with four levels, a first-stage leaf.
    context = ContextEntry.decode(bytes.fromhex("01201000000000000207000000000000"))
    assert (context.present, context.second_stage_table, context.address_width, context.domain_id) == (
        1,
        0x102000,
        2,
        7,
    )
    leaf = FirstStageEntry.decode((0x200000 | 7).to_bytes(8, "little"))
    assert (leaf.present, leaf.write, leaf.user, leaf.address) == (1, 1, 1, 0x200000)
    assert PasidEntry.of(first_stage_table=0x5000).encode()[16:24] == (0x5000).to_bytes(8, "little")


def test_reserved_bits_are_found():
    assert ContextEntry(0x10).reserved_set() == (Bits(11, 4),)
    assert ContextEntry(0xF).reserved_set() == ()


def test_a_structure_is_told_in_words():
    assert str(RootEntry.of(present=1, context_table=0x1000)) == "RootEntry(present=0x1 context_table=0x1000)"
