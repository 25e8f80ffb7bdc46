"""Fault lines of Linux, as real kernels printed them, in every dialect."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import pytest

from harness.evidence import Entry
from harness.vtd.source_id import SourceId
from harness.witnesses.guest_log import LogLine, kernel_lines, logged_faults, unread

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
    assert "of which 0 could be read" in unread([LogLine("DMAR: Request device 01:00.0 fault")], limited=True)[0]


DMA = "DMAR: [DMA Write NO_PASID] Request device [01:00.0] fault addr 0x1000 [fault reason 0x05] PTE Write"


def read(*texts):
    """Give what was read, and what was told as unread."""
    lines = [LogLine(text, f"line {number}") for number, text in enumerate(texts)]
    return list(logged_faults(lines)), unread(lines, limited=True)


@pytest.mark.parametrize(
    "text",
    [
        DMA.replace("0x1000", "0xffxxxxxx"),
        DMA.replace("0x1000", "ffxxxxxx"),
        DMA.replace("0x1000", "0x1000_0"),
        DMA.replace("NO_PASID", "PASID 0x1z"),
        DMA.replace("[DMA Write NO_PASID] ", ""),
        DMA.replace("DMA Write", "DMA"),
        DMA.replace("addr", "index"),
        DMA.replace("DMA Write", "INTR-REMAP"),
    ],
)
def test_what_is_not_said_whole_is_told_and_not_guessed(text):
    faults, told = read(text)

    assert faults == []
    assert any("of which 0 could be read" in problem for problem in told)


@pytest.mark.parametrize("between", ["", " ", "] ", " [   12.345678] "])
def test_faults_that_are_glued_on_a_line_are_each_read(between):
    other = DMA.replace("Write", "Read").replace("0x05", "0x06").replace("0x1000", "0x2000")
    faults, told = read(DMA + between + other)

    assert [(fault.reason, fault.fault.first, fault.fault.access.value) for fault in faults] == [
        (0x05, 0x1000, "write"), (0x06, 0x2000, "read"),
    ]  # fmt: skip
    assert told == []


OF_DMA = "DMAR:[DMA Read] Request device [00:04.0] fault addr 1000", "DMAR:[fault reason 06] PTE Read access"
OF_INTERRUPT = "INTR-REMAP: Request device [[00:04.0] fault index 10", "INTR-REMAP:[fault reason 34] Present field"


@pytest.mark.parametrize(("request_line", "own", "foreign"), [(*OF_DMA, OF_INTERRUPT[1]), (*OF_INTERRUPT, OF_DMA[1])])
def test_a_reason_of_the_other_kind_is_not_its_own(request_line, own, foreign):
    assert read(request_line, own)[1] == []

    faults, told = read(request_line, foreign)

    assert [fault.reason for fault in faults] == [None]
    assert any("is missing" in problem for problem in told)
    assert any("1 reasons of faults in the guest's log, of which 0 belong" in problem for problem in told)


def test_a_segment_is_another_device():
    (there,), _ = read(DMA.replace("[01:00.0]", "[0001:01:00.0]"))
    (here,), _ = read(DMA.replace("[01:00.0]", "[0000:01:00.0]"))

    assert str(there.source) == "0001:01:00.0"
    assert str(here.source) == "01:00.0"
    assert there.source != here.source == SourceId.parse("01:00.0")


def line(text, source="kmsg", **data):
    return Entry(t=0.0, source=source, kind="line", step=0, data={"text": text, **data}, line=1)


def test_only_the_kernels_own_records_count():
    assert list(logged_faults(kernel_lines([line(DMA, facility=0)], "kmsg")))
    assert list(logged_faults(kernel_lines([line(DMA)], "kmsg"))), "a journal from before facilities were told"
    assert not list(logged_faults(kernel_lines([line(DMA, facility=1)], "kmsg")))


def test_what_user_space_wrote_is_none_of_the_kernels_on_the_console_either():
    shown = line(f"[    1.000000] {DMA}", source="console")

    assert kernel_lines([shown, line(DMA, facility=0)], "console")
    assert not kernel_lines([shown, line(DMA, facility=1)], "console")


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
