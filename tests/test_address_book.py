"""Names to bus addresses."""

from __future__ import annotations

import pytest

from harness.address_book import AddressBook, Buffer
from harness.errors import HarnessError, InfraError


def _book(*, translated=True):
    book = AddressBook(translated=translated)
    book.add(Buffer("own", 0x2000, (0x7000, 0x9000)))
    book.add(Buffer("victim", 0x1000, (0x4000,)))
    return book


def test_a_mapped_buffer_is_hit_at_its_iova():
    book = _book()
    book.mapped("d", "own", 0x100000, 0x2000)

    aimed = book.aim("d", "own", 0x1010, 16)

    assert (aimed.address, aimed.physical) == (0x101010, 0x9010)


def test_what_no_domain_maps_is_hit_at_its_guest_physical_address():
    assert _book().aim("d", "victim", 0, 64).address == 0x4000


def test_the_own_domain_goes_before_others():
    book = _book()
    book.mapped("other", "own", 0x900000, 0x2000)
    book.mapped("d", "own", 0x100000, 0x2000)

    assert book.aim("d", "own", 0, 64).address == 0x100000
    assert book.aim("third", "own", 0, 64).address == 0x900000


def test_an_address_is_still_aimed_at_after_its_unmapping():
    book = _book()
    book.mapped("d", "own", 0x100000, 0x2000)
    book.unmapped("d", 0x100000)

    assert book.aim("d", "own", 0, 64).address == 0x100000


def test_without_translation_every_aim_is_guest_physical():
    book = _book(translated=False)
    book.mapped("d", "own", 0x100000, 0x2000)

    assert book.aim("d", "own", 0x1000, 64).address == 0x9000
    assert book.aim_at("d", 0x101000, 64).address == 0x9000


def test_a_number_that_was_never_mapped_cannot_be_aimed_at():
    with pytest.raises(HarnessError, match="never mapped|ever mapped"):
        _book().aim_at("d", 0x5000, 64)


def test_a_live_range_is_not_found_once_unmapped():
    book = _book()
    book.mapped("d", "own", 0x100000, 0x2000)
    book.unmapped("d")

    with pytest.raises(HarnessError, match="does not map"):
        book.live_range("d", "own")


def test_bytes_across_scattered_pages_have_no_one_address():
    with pytest.raises(InfraError, match="contiguous"):
        _book().aim("d", "own", 0xFF0, 64)


def test_beyond_the_end_is_refused():
    with pytest.raises(HarnessError, match="bytes; asked"):
        _book().aim("d", "victim", 0xFF0, 64)


def _nested_book(*, translated=True):
    """A page of a nested guest: the guest has it at 0x3000, the platform at 0x4000."""
    book = _book(translated=translated)
    book.mapped("alice", "victim", 0x3000, 0x1000, private=True)
    return book


def test_a_guests_own_device_is_given_the_guests_address():
    aimed = _nested_book().aim("alice", "victim", 0x10, 16)

    assert (aimed.address, aimed.physical) == (0x3010, 0x4010)


@pytest.mark.parametrize("domain", ["bob", "d", None])
def test_a_strangers_device_is_given_the_platforms_address(domain):
    aimed = _nested_book().aim(domain, "victim", 0x10, 16)

    assert (aimed.address, aimed.physical) == (0x4010, 0x4010)


def test_a_stranger_is_given_what_another_domain_maps_for_the_same_page():
    book = _nested_book()
    book.mapped("d", "victim", 0x100000, 0x1000)

    assert book.aim("bob", "victim", 0, 16).address == 0x100000
    assert book.aim("alice", "victim", 0, 16).address == 0x3000


def test_without_translation_everybody_is_given_the_platforms_address():
    book = _nested_book(translated=False)

    assert {book.aim(domain, "victim", 0, 16).address for domain in ("alice", "bob", None)} == {0x4000}


def test_a_number_is_the_guests_address_to_its_own_device_alone():
    book = _nested_book()

    assert book.aim_at("alice", 0x3010, 16).physical == 0x4010
    with pytest.raises(HarnessError, match="nothing was ever mapped at 0x3010"):
        book.aim_at("bob", 0x3010, 16)


def test_the_end_of_a_guest_ends_its_mappings_and_nobody_elses():
    book = _nested_book()
    book.mapped("d", "own", 0x100000, 0x2000)
    book.unmapped("alice")

    with pytest.raises(HarnessError, match="does not map"):
        book.live_range("alice", "victim")
    assert book.live_range("d", "own").iova == 0x100000
    assert book.aim("bob", "victim", 0, 16).address == 0x4000
