"""Fault lines of Linux, as real kernels printed them, in every dialect."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import pytest

from harness.witnesses.guest_log import LogLine, logged_faults, unread

CORPUS = json.loads(Path(__file__).with_name("fault_lines.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", CORPUS, ids=[case["name"] for case in CORPUS])
def test_each_dialect_is_read_into_the_same_shape(case):
    found = list(logged_faults(LogLine(line, f"line {number}") for number, line in enumerate(case["lines"])))

    assert [
        {
            "source": str(fault.source),
            "reason": fault.reason,
            "access": fault.fault.access.value if fault.fault else None,
            "address": fault.fault.first if fault.fault else None,
            "index": fault.index,
            "pasid": fault.pasid,
        }
        for fault in found
    ] == case["faults"]


def test_a_reason_line_without_a_request_is_no_fault():
    assert list(logged_faults([LogLine("DMAR:[fault reason 05] PTE Write access is not set")])) == []


def test_ordinary_dmar_lines_are_no_faults():
    lines = [
        "DMAR: IOMMU enabled",
        "DMAR: DRHD: handling fault status reg 2",
        "DMAR-IR: Enabled IRQ remapping in xapic mode",
    ]

    assert list(logged_faults(map(LogLine, lines))) == []


def test_the_ref_is_that_of_the_request_line():
    lines = [
        LogLine("DMAR:[DMA Read] Request device [00:04.0] fault addr 1000", "a"),
        LogLine("DMAR:[fault reason 06] x", "b"),
    ]

    assert [fault.ref for fault in logged_faults(lines)] == ["a"]


@pytest.mark.parametrize("case", CORPUS, ids=[case["name"] for case in CORPUS])
def test_every_dialect_is_read_in_full_unless_its_reason_is_lost(case):
    problems = unread([LogLine(line) for line in case["lines"]], limited=False)

    assert len(problems) == sum(fault["reason"] is None for fault in case["faults"])


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("DMAR: DRHD: handling fault status reg 3", "handled 1 faults, but its log tells 0"),
        ("dmar_fault: 893 callbacks suppressed", "limited"),
    ],
)
def test_what_a_full_log_must_not_say_is_told_unless_it_was_limited(line, told):
    assert told in unread([LogLine(line)], limited=False)[0]
    assert unread([LogLine(line)], limited=True) == []


def test_a_fault_line_of_an_unknown_dialect_is_told():
    assert unread([LogLine("DMAR: Request device 01:00.0 fault", "here")], limited=True) == [
        "here: a line about a fault that could not be read whole: DMAR: Request device 01:00.0 fault"
    ]


WHOLE = "DMAR: [DMA Write NO_PASID] Request device [01:00.0] fault addr 0x1000 [fault reason 0x05] PTE Write access"
OTHER = "DMAR: [DMA Read NO_PASID] Request device [02:00.0] fault addr 0x2000 [fault reason 0x06] PTE Read access"
FIRST_OF_TWO = "DMAR:[DMA Write] Request device [00:02.0] fault addr 6df084000 "


@pytest.mark.parametrize(
    "line",
    [
        WHOLE.replace("0x1000", "ffxxxxxx"),
        WHOLE.replace("0x1000", "0x1000g"),
        WHOLE.replace("0x1000", "0x1000_0000"),
        WHOLE.replace("0x1000", "0x10000000000000000"),  # 65 bits
        WHOLE.replace("[01:00.0]", "[01:00.01]"),
        WHOLE.replace("[01:00.0]", "[101:00.0]"),
        WHOLE.replace("[01:00.0]", "[[01:00.0]"),
        WHOLE.replace("0x05", "0x105"),
        WHOLE.replace("0x05", "256"),
        WHOLE.replace("0x05", "0x05x"),
        WHOLE.replace("NO_PASID", "PASID 0x1g"),
        WHOLE.replace("[DMA Write NO_PASID] ", ""),  # neither a read nor a write
        WHOLE.replace("DMA Write", "DMA"),
        WHOLE.replace("DMAR: ", ""),
        WHOLE.replace("fault addr", "fault index"),  # of a DMA
        WHOLE.replace("DMA Write NO_PASID", "INTR-REMAP"),  # an address of an interrupt
        WHOLE.split("Request", maxsplit=1)[0],
        WHOLE.split(" fault addr", maxsplit=1)[0],
        "DMAR: [INTR-REMAP] Request device [00:04.0] fault index 0x10000 [fault reason 0x22] Present field",
        "DMAR:[fault reason 05] PTE Write access is not set",  # of nothing
        "DMAR: DRHD: handling fault status",
        "DMAR: DRHD: handling fault status reg 2x",
    ],
)
def test_what_is_not_whole_is_no_fault_and_is_told(line):
    assert list(logged_faults([LogLine(line)])) == []
    assert any(
        "could not be read whole" in problem and line in problem for problem in unread([LogLine(line)], limited=True)
    )


@pytest.mark.parametrize("glue", ["", " ", " is not set", " is not set[    5.457844] "])
def test_two_faults_in_one_line_are_two(glue):
    found = list(logged_faults([LogLine(WHOLE + glue + OTHER, "here")]))

    assert [(str(each.source), each.reason, each.ref) for each in found] == [
        ("01:00.0", 5, "here"),
        ("02:00.0", 6, "here"),
    ]
    assert unread([LogLine(WHOLE + glue + OTHER)], limited=False) == []


@pytest.mark.parametrize(
    "half", [WHOLE[:20], WHOLE[:60], OTHER.replace("0x2000", "0x20q"), "DMAR: [INTR-REMAP] Request"]
)
def test_half_a_fault_beside_a_whole_one_is_told(half):
    for line in (WHOLE + half, half + WHOLE):
        assert [each.reason for each in logged_faults([LogLine(line)])] == [5]
        assert "could not be read whole" in unread([LogLine(line)], limited=True)[0]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (FIRST_OF_TWO, "INTR-REMAP:[fault reason 34] Present field in the IRTE entry is clear"),
        ("INTR-REMAP: Request device [[f0:1f.7] fault index 0 ", "DMAR:[fault reason 05] PTE Write access is not set"),
    ],
)
def test_a_reason_of_the_other_kind_is_not_that_of_the_line_before_it(first, second):
    lines = [LogLine(first), LogLine(second)]

    assert [each.reason for each in logged_faults(lines)] == [None]
    problems = unread(lines, limited=True)
    assert "reason of a fault" in problems[0]
    assert second in problems[1]


def test_a_record_of_two_lines_is_one_fault():
    record = LogLine(f"{FIRST_OF_TWO}\nDMAR:[fault reason 05] PTE Write access is not set", "here")

    assert [(each.reason, each.ref) for each in logged_faults([record])] == [(5, "here")]
    assert unread([record], limited=False) == []


def test_the_segment_is_kept():
    (there,) = logged_faults([LogLine(WHOLE.replace("01:00.0", "0001:01:00.0"))])
    (here,) = logged_faults([LogLine(WHOLE.replace("01:00.0", "0000:01:00.0"))])
    (old,) = logged_faults([LogLine(WHOLE)])

    assert str(there.source) == "0001:01:00.0"
    assert there.source != here.source == old.source


#: Lines in all, and what is done to those of the corpus.
_FUZZED = 100_000
_SPLICES = (
    "",
    " ",
    "[",
    "]",
    "0",
    "f",
    "x",
    "DMAR:",
    "Request device",
    "fault addr",
    "[fault reason ",
    "\x00",
    "\ufffd",
)


def _mutated(chance: random.Random, line: str) -> str:
    begin = chance.randrange(len(line) + 1)
    end = min(len(line), begin + chance.choice((0, 1, 1, 2, 8, 60)))
    splice = chance.choice((*_SPLICES, chr(chance.randrange(32, 127)), line[chance.randrange(len(line)) :]))
    return line[:begin] + splice + line[end:]


def test_no_mutation_of_a_line_crashes_the_reader_or_is_taken_for_what_it_does_not_say():
    chance = random.Random(20261124)  # noqa: S311 - the same lines each time
    corpus = [line for case in CORPUS for line in case["lines"]]
    kernel = [line for line in corpus if "Request device" not in line] + ["e1000e: eth1 NIC Link is Up", "ACPI: DMAR"]
    read = 0
    for number in range(_FUZZED):
        line = _mutated(chance, chance.choice(kernel if number % 4 == 0 else corpus))
        for found in logged_faults([LogLine(line, "here")]):
            read += 1
            address = found.index if found.fault is None else found.fault.first
            # A fault is only read where its own words stand, with the numbers it is read to have.
            assert "Request device [" in line, line
            assert f"{address:x}" in line.lower().replace("0x0", "0x"), line
            assert f"{found.source.devfn >> 3:x}.{found.source.devfn & 7}" in line.lower().replace(":0x", ":"), line
            assert found.reason is None or found.reason in _numbers(line), line
        unread([LogLine(line)], limited=False)
    assert read > _FUZZED // 10, "hardly a line could still be read, so nothing was compared"


def _numbers(line: str) -> set[int]:
    """Every number that the last brackets of a line could mean."""
    words = re.findall(r"fault reason (?:0x)?([0-9a-fA-F]+)", line)
    return {int(word, 16) for word in words} | {int(word) for word in words if word.isdecimal()}
