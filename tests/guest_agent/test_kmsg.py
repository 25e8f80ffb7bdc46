"""Records of /dev/kmsg, recorded under Debian's 6.1 and 6.12 kernels, and what is noticed when some are missing."""

import socket
from collections.abc import Iterator

import kmsg
import pytest

MARK = rb"14,618,8345602,-;vtd-harness: tab\x09here \xc3\xa9 back\x5cslash" + b"\n"
WITH_DICTIONARY = (
    b"6,204,1151501,-;acpi PNP0A08:00: _OSC: OS supports [ExtendedConfig ASPM ClockPM Segments MSI HPX-Type3]\n"
    b" SUBSYSTEM=acpi\n DEVICE=+acpi:PNP0A08:00\n"
)


def test_a_record_has_sequence_time_level_and_unescaped_text():
    assert kmsg.parse_record(MARK) == {
        "seq": 618,
        "priority": 6,
        "facility": 1,
        "us": 8345602,
        "text": "vtd-harness: tab\there é back\\slash",
    }


def test_dictionary_lines_are_no_text():
    record = kmsg.parse_record(WITH_DICTIONARY)
    assert record["text"].endswith("HPX-Type3]")
    assert record["priority"] == 6
    assert record["facility"] == 0


def test_text_may_contain_semicolons_and_commas():
    assert kmsg.parse_record(b"5,1,2,-;a;b,c\n")["text"] == "a;b,c"


def test_more_prefix_fields_are_passed_over():
    assert kmsg.parse_record(b"5,1,2,-,caller=T1;x\n")["us"] == 2


def test_what_is_no_record_is_an_error():
    with pytest.raises(ValueError, match="values to unpack"):
        kmsg.parse_record(b"DMAR: no prefix\n")


@pytest.fixture
def log() -> Iterator[tuple[kmsg.KernelLog, socket.socket]]:
    """A log that reads from a socket, which like /dev/kmsg gives one record per read and EAGAIN at the end."""
    kernel, reader = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with kernel, reader:
        reader.setblocking(False)
        opened = kmsg.KernelLog()
        opened._reader = reader.fileno()
        yield opened, kernel


def test_each_call_gives_what_came_since_the_one_before(log):
    opened, kernel = log
    for number in range(3):
        kernel.send(b"6,%d,1,-;line\n" % number)
    assert [entry["seq"] for entry in opened.kmsg()["entries"]] == [0, 1, 2]
    kernel.send(b"6,3,1,-;line\n")
    assert opened.kmsg() == {
        "entries": [{"seq": 3, "priority": 6, "facility": 0, "us": 1, "text": "line"}],
        "lost": False,
    }
    assert opened.kmsg() == {"entries": [], "lost": False}


def test_a_missing_beginning_of_the_boot_is_a_loss(log):
    opened, kernel = log
    kernel.send(b"6,1,1,-;line\n")
    assert opened.kmsg()["lost"]


def test_a_gap_between_two_calls_is_a_loss_once(log):
    opened, kernel = log
    kernel.send(b"6,0,1,-;line\n")
    assert not opened.kmsg()["lost"]
    kernel.send(b"6,2,1,-;line\n")
    assert opened.kmsg()["lost"]
    assert not opened.kmsg()["lost"]
