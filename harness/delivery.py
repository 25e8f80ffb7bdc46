"""The proof of how a device's interrupts are delivered under Linux: pure functions over what a `delivery` step saw.

Seven witnesses: `announcement` (the device was told to send so many), `count` (so many came to its user, and
/proc/interrupts rose by as many), `chip` (the name of the interrupt chip there), `register` (GSTS and IRTA, read from
outside), `message` (the device's MSI capability, read from outside), `entry` (the interrupt remapping entry that the
message names, found by walking from outside), and `host-trace` (what QEMU made of each message).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from harness.evidence import Entry
from harness.judgement import StepEvidence
from harness.verdict import Witness, WitnessVerdict
from harness.vtd.interrupts import InterruptAddress, InterruptRequest, SourceValidation
from harness.vtd.registers import Capability, ExtendedCapability, GlobalStatus, InterruptRemapTableAddress
from harness.vtd.source_id import SourceId
from harness.vtd.unit import Unit
from harness.vtd.walk import Unreadable
from harness.vtd.walk.interrupts import InterruptWalk, walk_interrupt
from harness.witnesses.host_trace import INTERRUPT_REMAPPED

#: No remapping, remapping with destinations of 8 bits, or of 32 bits (extended interrupt mode, IRTA.EIME).
Remapping = Literal["off", "xapic", "x2apic"]

_CONFIRMS, _DENIES, _MISSING = WitnessVerdict.CONFIRMS, WitnessVerdict.DENIES, WitnessVerdict.MISSING


@dataclass(frozen=True, slots=True)
class Target:
    """Where an interrupt goes: the vector, and the destination, in the logical mode of x2APIC a set of bits."""

    vector: int
    destination: int

    def __str__(self) -> str:
        return f"vector {self.vector:#x} at destination {self.destination:#x}"

    @classmethod
    def of_message(cls, address: int, data: int) -> Target:
        """Read a message in compatibility format.

        Bits 63:40 of the address continue the destination beyond its 8 bits, as x86_iommu_irq_to_msi_message in
        QEMU's hw/i386/x86-iommu.c has it for a remapped message.
        """
        return cls(data & 0xFF, address >> 12 & 0xFF | address >> 32 & 0xFFFF_FF00)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What a step saw of `messages` interrupts of one device; `about` is its observation, `ref` the place of that."""

    evidence: StepEvidence
    about: Mapping[str, Any]
    ref: str
    messages: int
    remapping: Remapping

    def witnesses(self) -> tuple[Witness, ...]:
        """Let each of the seven say what it saw."""
        return (
            self._announcement(),
            self._count(),
            self._chip(),
            self.register(),
            self.message(),
            self.entry(),
            self.trace(),
        )

    @property
    def _remapped(self) -> bool:
        return self.remapping != "off"

    @property
    def _sent(self) -> tuple[int, int]:
        address, data = self.about["message"]
        return int(address), int(data)

    @property
    def traced(self) -> list[Entry]:
        """What QEMU traced of its message."""
        return [
            entry
            for entry in self.evidence.entries
            if (entry.source, entry.kind) == ("trace", "remapped") and tuple(entry.data["request"]) == self._sent
        ]

    @property
    def _table(self) -> InterruptRemapTableAddress:
        return InterruptRemapTableAddress(int(self.about["irta"]))

    def _announcement(self) -> Witness:
        told = [
            entry
            for entry in self.evidence.entries
            if (entry.source, entry.kind) == ("agent", "msi") and entry.data["purpose"] == "control"
        ]
        wanted = (self.about["device"], self.about["function"])
        mine = all((entry.data.get("device", wanted[0]), entry.data["bdf"]) == wanted for entry in told)
        verdict = _CONFIRMS if mine and len(told) == self.messages else _MISSING
        refs = tuple(entry.ref for entry in told[:3])
        return self._witness("announcement", verdict, f"the device announced {len(told)} messages", refs)

    def _count(self) -> Witness:
        user = self.about["after"] - self.about["before"]
        lines = (self.about["counted_before"], self.about["counted_after"])
        if any(len(told) != 1 for told in lines) or _line(lines[0][0]) != _line(lines[1][0]):
            return self._witness("count", _MISSING, "/proc/interrupts has not one line for the device")
        kernel = lines[1][0]["count"] - lines[0][0]["count"]
        text = f"{user} of {self.messages} interrupts came to the user, /proc/interrupts rose by {kernel}"
        return self._says("count", text, right=user == kernel == self.messages)

    def _chip(self) -> Witness:
        chips = {str(told["chip"]) for when in ("before", "after") for told in self.about[f"counted_{when}"]}
        right = len(chips) == 1 and all(chip.startswith("IR-") == self._remapped for chip in chips)
        return self._says("chip", f"the interrupt chip is {', '.join(sorted(chips)) or 'not told'}", right=right)

    def register(self) -> Witness:
        """What GSTS and IRTA say."""
        enabled, extended = GlobalStatus(self.about["gsts"]).interrupt_remapping_enabled, self._table.extended_mode
        right = enabled == self._remapped and (not enabled or bool(extended) == (self.remapping == "x2apic"))
        return self._says("register", f"GSTS.IRES={enabled:d} IRTA.EIME={extended}", right=right)

    def message(self) -> Witness:
        """What stands in the device."""
        address, data = self._sent
        remappable = bool(InterruptAddress(address).remappable)
        kind = "remappable" if remappable else f"compatibility format, {Target.of_message(address, data)}"
        text = f"the device's message is {address:#x}/{data:#x} ({kind})"
        return self._says("message", text, right=remappable == self._remapped)

    def entry(self) -> Witness:
        """What the message leads to in the interrupt remapping table."""
        address, data = self._sent
        if not self._remapped:
            named = InterruptRequest.read(address, data)
            text = "the message names no entry" if named is None else f"the message names entry {named.index:#x}"
            return self._says("entry", text, right=named is None)
        source = SourceId.parse(str(self.about["source_id"]))
        walk = self._walk(source)
        if walk is None or walk.entry is None or walk.remapped is None:
            return self._says("entry", "the message leads to no entry that lets it through", right=False)
        validated = walk.entry.source_validation == SourceValidation.SOURCE_ID and walk.entry.source_id == source.value
        goes_to = Target(walk.remapped.vector, walk.remapped.destination)
        whose = f"for {source} alone" if validated and not walk.entry.source_qualifier else "for others too"
        text = f"entry {walk.index:#x} at {walk.address:#x} gives {goes_to}, {whose}"
        return self._says("entry", text, right=validated and not walk.entry.source_qualifier)

    def _walk(self, source: SourceId) -> InterruptWalk | None:
        """Walk once more, through the one entry that was recorded."""
        told = self.about["entry"]
        if told is None or InterruptRequest.read(*self._sent) is None:
            return None

        def read(address: int, size: int) -> bytes:
            data = bytes.fromhex(told["data"])
            if (address, size) != (told["address"], len(data)) or not self._was_read(address, told["data"]):
                raise Unreadable(address)
            return data

        unit = Unit.from_registers(Capability(self.about["cap"]), ExtendedCapability(self.about["ecap"]))
        return walk_interrupt(unit, self._table, self._sent, source, read)

    def _was_read(self, address: int, data: str) -> bool:
        """Whether the entry was read from outside, and whatever was read there is the same."""
        read = [e.data for e in self.evidence.entries if e.source == "memory" and e.data["gpa"] == address]
        return bool(read) and all((one["size"], one.get("data")) == (len(data) // 2, data) for one in read)

    def trace(self) -> Witness:
        """What QEMU made of the messages."""
        watched = any(
            entry.source == "trace" and entry.kind == "watching" and INTERRUPT_REMAPPED in entry.data["events"]
            for entry in self.evidence.entries
        )
        if not watched:
            return self._witness("host-trace", _MISSING, "QEMU's trace of remapped interrupts was not switched on")
        mine = self.traced
        became = {tuple(entry.data["message"]) for entry in mine}
        refs = tuple(entry.ref for entry in mine[:3])
        if not self._remapped:
            offered = ExtendedCapability(self.about["ecap"]).interrupt_remapping
            right = became <= {self._sent} and len(mine) == (self.messages if offered else 0)
            text = f"QEMU passed {len(mine)} of the messages through the unit, " + (
                "each as it was" if became <= {self._sent} else "and changed them"
            )
            return self._says("host-trace", text, refs, right=right)
        walk = self._walk(SourceId.parse(str(self.about["source_id"])))
        wanted = None if walk is None or walk.remapped is None else walk.remapped
        targets = {Target.of_message(*message) for message in became}
        right = wanted is not None and targets == {Target(wanted.vector, wanted.destination)}
        goes_to = ", ".join(sorted(map(str, targets))) or "nowhere"
        text = f"QEMU remapped {len(mine)} of the messages to {goes_to}"
        return self._says("host-trace", text, refs, right=right and len(mine) == self.messages)

    def _says(self, name: str, text: str, refs: tuple[str, ...] = (), *, right: bool) -> Witness:
        return self._witness(name, _CONFIRMS if right else _DENIES, text, refs)

    def _witness(self, name: str, verdict: WitnessVerdict, text: str, refs: tuple[str, ...] = ()) -> Witness:
        return Witness(name=name, step=self.evidence.index, verdict=verdict, evidence=text, refs=refs or (self.ref,))


def _line(told: Mapping[str, Any]) -> tuple[object, object]:
    """Which line of /proc/interrupts it is."""
    return told.get("irq"), told.get("name")
