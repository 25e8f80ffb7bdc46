"""dmar_table: hold the guest's ACPI DMAR table against the options of the vIOMMU, the MADT, the devices and the log."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import Field

from harness.judgement import Judgement, StepEvidence, single
from harness.scenario.section import Section
from harness.scenario.step import Step
from harness.scenario.values import OnOff, Words
from harness.session import Session
from harness.verdict import Finding, Outcome, Witness, WitnessVerdict
from harness.vtd.acpi_table import io_apic_ids
from harness.vtd.dmar_fit import Machine, left_out, misfits
from harness.vtd.dmar_parse import parse
from harness.vtd.dmar_table import DmarTable, StructureType
from harness.vtd.registers import DEFAULT_BASE
from harness.vtd.source_id import SourceId
from harness.witnesses.kernel_log import said

_TABLES = "/sys/firmware/acpi/tables/"
#: How the kernel shows the firmware's memory map: in words of 6.1 and 6.12, or of 7.3 (e820_print_type and
#: e820_type_to_string in arch/x86/kernel/e820.c). What it needs of it are RAM, and what firmware may have devices use.
_MEMORY = re.compile(r"BIOS-e820: \[mem 0x(?P<first>[0-9a-f]+)-0x(?P<last>[0-9a-f]+)\]\s+(?P<what>.+?)\s*$")
_RAM, _RESERVED = ("usable", "System RAM"), ("reserved", "device reserved", "ACPI NVS")
#: Header types of PCI-to-PCI bridges.
_BRIDGE = 1


class DmarBody(Section):
    """What the table must say."""

    address_width: int = Field(description="Bits of a host address: aw_bits of the vIOMMU.")
    interrupt_remapping: OnOff = Field(description="Whether the platform offers interrupt remapping.")
    device_tlb: OnOff = Field(default="off", description="Whether root ports take ATS requests (ATSR).")
    wrong: tuple[Words, ...] = Field(
        default=(),
        description="What must be wrong with it: words, each of something that a witness finds, or of a remark.",
    )


class DmarTableStep(Step, keyword="dmar_table"):
    """Read the raw DMAR table of the guest with our own parser, and hold it against five witnesses.

    They are what the table itself must be (checksum, lengths, structures), the options that QEMU was given, the I/O
    APICs of the MADT, the PCI devices that the guest found on its root bus, and the kernel's own words at boot.
    """

    dmar_table: DmarBody

    def summary(self) -> str:
        """Say in a line what is done."""
        body = self.dmar_table
        told = (
            f"the DMAR table tells of {body.address_width} address bits, "
            f"interrupt remapping {body.interrupt_remapping}, device TLBs {body.device_tlb}"
        )
        return told + "".join(f", and is wrong: '{words}'" for words in body.wrong)

    def run(self, session: Session) -> None:
        """Read tables and devices from the guest, and the options from the command line of its QEMU."""
        tables = {name: session.guest.run(["cat", _TABLES + name]).stdout.hex() for name in ("DMAR", "APIC")}
        functions = session.call("pci_list")["functions"]
        texts = said(session.boot_log)
        session.record(
            "dmar",
            dmar=tables["DMAR"],
            madt=tables["APIC"],
            functions={each["bdf"]: each["header_type"] for each in functions},
            options=_options(session.guest.machine.argv),
            memory=_memory(texts, _RAM),
            reserved=_memory(texts, _RESERVED),
            lines=[text for text in texts if "DMAR" in text],
        )

    def judge(self, evidence: StepEvidence) -> Judgement:
        """Let each witness say where it disagrees with the table or with what is stated."""
        seen = evidence.observation("dmar")
        if seen is None:
            return single(Outcome.ERROR, "the table was never read", evidence.index)
        parsed = parse(bytes.fromhex(seen.data["dmar"]))
        if parsed.table is None:
            return single(Outcome.ERROR, f"there is no DMAR table: {parsed.diagnoses[0]}", evidence.index, seen.ref)
        for key, what in _NEEDED.items():
            if not seen.data[key]:
                return single(Outcome.ERROR, f"nothing is known of {what}", evidence.index, seen.ref)
        table, data = parsed.table, seen.data
        try:
            io_apics = io_apic_ids(bytes.fromhex(data["madt"]))
        except ValueError as problem:
            return single(Outcome.ERROR, str(problem), evidence.index, seen.ref)
        told = {
            "table": [str(diagnosis) for diagnosis in parsed.defects],
            "statement": list(self._unlike_stated(table)),
            "options": list(_unlike_options(table, data["options"])),
            "machine": list(_unlike_machine(table, data, io_apics)),
            "guest-log": list(_unlike_log(table, data["lines"])),
        }
        remarks = [str(diagnosis) for diagnosis in parsed.remarks]
        witnesses = tuple(self._witness(evidence.index, name, told, remarks, seen.ref) for name in told)
        denying = [witness for witness in witnesses if witness.verdict is not WitnessVerdict.CONFIRMS]
        if denying:
            outcome, text = Outcome.FAIL, "; ".join(f"{witness.name}: {witness.evidence}" for witness in denying)
        else:
            outcome, text = Outcome.PASS, f"{self.summary()}: options, machine and log agree"
        finding = Finding(outcome=outcome, text=text, step=evidence.index, refs=(seen.ref,))
        return Judgement(findings=(finding,), witnesses=witnesses)

    def _witness(
        self, index: int, name: str, told: Mapping[str, list[str]], remarks: Sequence[str], ref: str
    ) -> Witness:
        """Give the witness `name` of all that were told: it denies what is not stated, or was not found by any.

        Remarks about the table deny nothing; they may be stated, too.
        """
        stated = self.dmar_table.wrong
        denied = [each for each in told[name] if not any(words in each for words in stated)]
        if name == "statement":
            found = [*remarks, *(problem for problems in told.values() for problem in problems)]
            denied += [f"nothing finds '{words}'" for words in stated if not any(words in each for each in found)]
        agreed = [f"as stated, {each}" for each in told[name]]
        odd = [f"remark: {remark}" for remark in remarks] if name == "table" else []
        return Witness(
            name=name,
            step=index,
            verdict=WitnessVerdict.DENIES if denied else WitnessVerdict.CONFIRMS,
            evidence="; ".join([*(denied or agreed or ["agrees with the table"]), *odd]),
            refs=(ref,),
        )

    def _unlike_stated(self, table: DmarTable) -> Iterator[str]:
        body = self.dmar_table
        if table.address_width != body.address_width:
            yield f"{table.address_width} address bits instead of {body.address_width}"
        if table.interrupt_remapping != (body.interrupt_remapping == "on"):
            yield f"interrupt remapping is {'on' if table.interrupt_remapping else 'off'}"
        if bool(table.of(StructureType.ATSR)) != (body.device_tlb == "on"):
            yield f"{len(table.of(StructureType.ATSR))} ATSR structures"
        bases = [unit.base for unit in table.of(StructureType.DRHD)]
        if bases != [DEFAULT_BASE]:
            yield f"remapping units at {', '.join(map(hex, bases)) or 'nowhere'}, not one at {DEFAULT_BASE:#x}"


#: What must have been recorded: a witness that saw nothing would agree with any table.
_NEEDED = {
    "options": "the options of the vIOMMU",
    "functions": "the PCI functions",
    "memory": "the memory map",
    "lines": "what the kernel said of the table",
}


def _options(argv: tuple[str, ...]) -> dict[str, Any]:
    """Find the options of the vIOMMU in QEMU's command line."""
    devices = [json.loads(value) for option, value in itertools.pairwise(argv) if option == "-device"]
    return next((device for device in devices if device["driver"] == "intel-iommu"), {})


def _unlike_options(table: DmarTable, options: dict[str, Any]) -> Iterator[str]:
    """Tell which options of QEMU the table does not follow; those that were not given have no say."""
    if options.get("aw-bits", table.address_width) != table.address_width:
        yield f"aw-bits is {options['aw-bits']}, the table tells of {table.address_width}"
    remapping = "on" if table.interrupt_remapping else "off"
    if options.get("intremap", remapping) != remapping:
        yield f"intremap is {options['intremap']}, the table says {remapping}"
    device_tlb = bool(table.of(StructureType.ATSR))
    if options.get("device-iotlb", device_tlb) != device_tlb:
        yield f"device-iotlb is {options['device-iotlb']}, the table has {'an' if device_tlb else 'no'} ATSR"


def _unlike_machine(table: DmarTable, data: dict[str, Any], io_apics: tuple[int, ...]) -> Iterator[str]:
    """Tell where the table names what is not there, or leaves out what is: I/O APICs, and devices of the root bus."""
    functions = {SourceId.parse(bdf): kind == _BRIDGE for bdf, kind in data["functions"].items()}
    root = {function: bridge for function, bridge in functions.items() if not function.bus}
    reserved = data.get("reserved")  # not in journals that were recorded before there was a use for it
    machine = Machine(
        bridges=root,
        memory=_ranges(data["memory"]),
        reserved=None if reserved is None else _ranges(reserved),
        io_apics=io_apics,
    )
    yield from map(str, misfits(table, machine))
    yield from left_out(table, machine)


def _ranges(bounds: Sequence[Sequence[int]]) -> list[range]:
    return [range(first, last + 1) for first, last in bounds]


def _memory(texts: Sequence[str], words: Sequence[str]) -> list[list[int]]:
    """Find the first and last addresses of the memory that the kernel calls by one of `words`."""
    found = [match for match in map(_MEMORY.search, texts) if match and match["what"] in words]
    return [[int(match["first"], 16), int(match["last"], 16)] for match in found]


def _unlike_log(table: DmarTable, lines: list[str]) -> Iterator[str]:
    """Tell where the kernel read something else (parse_dmar_table in drivers/iommu/intel/dmar.c)."""
    units = table.of(StructureType.DRHD)
    expected = [f"DMAR: Host address width {table.address_width}"]
    expected += [f"DMAR: DRHD base: {unit.base:#016x} flags: {unit.flags:#x}" for unit in units]
    expected += [f"DMAR: RMRR base: {area.base:#016x} end: {area.limit:#016x}" for area in table.of(StructureType.RMRR)]
    expected += [f"DMAR: ATSR flags: {ports.flags:#x}" for ports in table.of(StructureType.ATSR)]
    for kind, word in ((StructureType.RMRR, "RMRR"), (StructureType.ATSR, "ATSR")):
        if units and not table.of(kind):
            expected.append(f"DMAR: No {word} found")
    yield from (f"the kernel did not say '{line}'" for line in expected if not any(line in each for each in lines))
    for line in lines:
        if _READ.search(line) and not any(each in line for each in expected):
            yield f"the kernel said '{line}'"
        elif "[Firmware Bug]" in line:
            yield f"the kernel complained: '{line}'"


#: The lines by which the kernel tells what it read.
_READ = re.compile(r"DMAR: (?:Host address width|DRHD base|RMRR base|ATSR flags)")
