"""The judging of a stray receive descriptor: pure functions over the evidence of a step.

That the NIC used the address is its own account: its head moved over the descriptor for the frame, it wrote back over
the address, and QEMU traced where it put the frame. What became of that, the witnesses of any DMA tell.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from harness.blocking import Attempt, judge_blocked, judge_landed
from harness.conformance import Behaviour
from harness.judgement import Judgement, StepEvidence, single
from harness.straying.ring import ADDRESS, DESCRIPTOR, buffer_name
from harness.verdict import Outcome, Witness, WitnessVerdict
from harness.vtd.faults import Access
from harness.vtd.miss import missed
from harness.vtd.source_id import SourceId
from harness.vtd.walk.mappings import PAGE
from harness.vtd.walk.mappings import Mapping as Mapped
from harness.witnesses.nic_trace import BUFFER_WRITTEN

#: Bytes of the frame check sequence, which some drivers have the NIC put behind a frame.
_FCS = 4

#: The bits of a paging entry of either stage that have the address (VT-d spec 9.7 and 9.8), and those of an address.
_FRAME = 0xF_FFFF_FFFF_F000


@dataclass(frozen=True, slots=True)
class Asked:
    """What a scenario asks for: whose descriptor, how long a frame, and what is wrong with it.

    `target` is where it was to lead, None for the buffer that the driver put there, `unmapped` whether that was to be
    mapped no longer.
    """

    device: str
    length: int
    target: str | None
    unmapped: bool = False


def judge_stray(evidence: StepEvidence, asked: Asked, expected: Behaviour) -> Judgement:
    """Judge the one frame."""
    seen = evidence.observation("stray")
    if seen is None:
        return single(Outcome.ERROR, "no descriptor was used", evidence.index)
    data = seen.data
    try:
        problem = _other_than_asked(evidence, data, asked) or _unread(evidence, data)
        if problem:
            return single(Outcome.ERROR, problem, evidence.index, seen.ref)
        announcement = _issued(evidence, data, seen.ref)
        frame, before, after = (bytes.fromhex(text) for text in (data["frames"][-1], data["before"], data["after"]))
        source = SourceId.parse(data["source_id"])
        attempt = Attempt(
            device=asked.device,
            function=source,
            source=source,
            access=Access.WRITE,
            address=data["address"],
            length=asked.length,
            target=data["target"],
            bytes_moved=after == frame != before,
            intact=after == before != frame,
            refs=(seen.ref,),
        )
        if expected.kind == "landed":
            return _led(judge_landed(evidence, attempt, announcement), evidence, data, seen.ref)
        judged = judge_blocked(evidence, attempt, expected.reasons, announcement)
        return _explained(judged, evidence, data)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as problem:
        text = f"what was recorded of the ring cannot be read: {problem!r}"
        return single(Outcome.ERROR, text, evidence.index, seen.ref)


def told_of(data: Mapping[str, Any]) -> str:
    """Say which mapping the address missed, and by how much."""
    miss = missed(_mapped(data), data["address"], Access.WRITE)
    if data["unmapped"]:
        return f"{miss}; the driver had mapped it, to {data['physical']:#x}, and the NIC had still to use it"
    if miss.within is None and miss.behind is None and data["address"] == data["physical"]:
        return f"{miss}, and it is the physical address of guest memory that this domain does not map"
    return str(miss)


def _mapped(data: Mapping[str, Any]) -> list[Mapped]:
    """Give the mappings of the domain; ValueError for what no tables map: half pages, or one address twice."""
    found = [
        Mapped(start, size, physical, readable="r" in rights, writable="w" in rights)
        for start, size, physical, rights in data["mappings"]
    ]
    for mapping, following in zip(found, [*found[1:], None], strict=True):
        whole = (mapping.start | mapping.size | mapping.physical) % PAGE == 0 < mapping.size
        if not whole or (following is not None and following.start < mapping.end):
            raise ValueError(f"no tables map {mapping}, and then {following}")
    return found


def _other_than_asked(evidence: StepEvidence, data: Mapping[str, Any], asked: Asked) -> str:
    """Tell where what was recorded is not what the scenario says."""
    wanted = (asked.device, asked.length, asked.target is not None, asked.unmapped)
    done = (data["device"], data["length"], data["strays"], data["unmapped"])
    if done != wanted or data["target"] != (asked.target or buffer_name(data["index"])):
        return f"another frame than was asked for: {done} to '{data['target']}'"
    if evidence.devices.get(asked.device) != SourceId.parse(data["source_id"]):
        return f"'{asked.device}' is {evidence.devices.get(asked.device)}, and {data['source_id']} was looked at"
    lengths = {len(frame) for frame in {bytes.fromhex(text) for text in data["frames"]}}
    if lengths != {asked.length} or len(set(data["frames"])) != len(data["frames"]):
        return "the frames are alike, or of another length than was asked for"
    if (data["address"] != data["own"]) != data["strays"]:
        return f"the address {data['address']:#x} is{' ' if data['strays'] else ' not '}the driver's own"
    return ""


def _unread(evidence: StepEvidence, data: Mapping[str, Any]) -> str:
    """Tell which bytes were not read from outside of the guest where they are said to stand, in that order."""
    asked = [
        (data["place"], data["descriptors"][0]),
        (data["physical"], data["before"]),
        (data["place"], data["descriptors"][1]),
        (data["place"], data["descriptors"][2]),
        (data["physical"], data["after"]),
    ]
    reads = [
        (entry.data["gpa"], entry.data["size"], entry.data["sha256"])
        for entry in evidence.entries
        if (entry.source, entry.kind) == ("memory", "read")
    ]
    wanted = [
        (place, len(content), hashlib.sha256(content).hexdigest())
        for place, content in ((place, bytes.fromhex(text)) for place, text in asked)
    ]
    if reads != wanted:
        return "the ring and the bytes are not those that were read from outside of the guest"
    return ""


def _issued(evidence: StepEvidence, data: Mapping[str, Any], ref: str) -> Witness:
    """Witness that the NIC used the descriptor, as it was meant to be, for just the last frame."""
    ring, heads = data["ring"], data["heads"]
    before, edited, used = (bytes.fromhex(text) for text in data["descriptors"])
    written, whole = _written(data)
    event = BUFFER_WRITTEN[data["model"]]
    watched = any(
        (entry.source, entry.kind) == ("trace", "watching") and event in entry.data["events"]
        for entry in evidence.entries
    )
    passed = [(ring["head"] + number + 1) % ring["count"] for number in range(len(data["frames"]))]
    rules = (
        (_address(before) != data["own"], "the driver's descriptor has another address"),
        (_address(edited) != data["address"], f"the descriptor does not lead to {data['address']:#x}"),
        (_address(used) == data["address"], "the NIC has not written back to the descriptor"),
        (heads != passed, f"the NIC's head went {ring['head']}, {', '.join(map(str, heads))}"),
        (data["index"] != (passed[-1] - 1) % ring["count"], f"descriptor {data['index']} was not the last"),
        (not watched, "QEMU's trace of the NIC's writes was not switched on"),
        (
            not data["length"] <= written <= data["length"] + _FCS,
            f"QEMU traced {written} bytes to {data['address']:#x}, and the frame has {data['length']}",
        ),
        (not whole, "QEMU traced other writes than one whole frame after the other"),
        (not _others_mapped(data), "QEMU traced a write of another frame to where no buffer is"),
        (not _is_ring(data), f"this is no ring that has descriptor {data['index']} at {data['place']:#x}"),
    )
    for wrong, text in rules:
        if wrong:
            return _witness(evidence, "announcement", WitnessVerdict.MISSING, text, ref)
    text = f"descriptor {data['index']} led to {data['address']:#x}; the NIC put {written} bytes there and went on"
    return _witness(evidence, "announcement", WitnessVerdict.CONFIRMS, text, ref)


def _written(data: Mapping[str, Any]) -> tuple[int, bool]:
    """Give how many bytes of the last frame the NIC wrote to the address, and whether it wrote each frame whole.

    Each goes to an address of its own, piece after piece.
    """
    sizes: dict[int, int] = {}
    whole = True
    for write in data["writes"]:
        whole = whole and write["offset"] == sizes.get(write["address"], 0)
        sizes[write["address"]] = sizes.get(write["address"], 0) + write["length"]
    whole = whole and len(sizes) == len(data["frames"]) and len(set(sizes.values())) == 1
    return (
        (sizes[data["address"]], whole and [*sizes][-1] == data["address"]) if data["address"] in sizes else (0, False)
    )


def _others_mapped(data: Mapping[str, Any]) -> bool:
    """Whether the frames before went where the domain maps something; without a domain nothing tells."""
    if data["mappings"] is None:
        return True
    others = {write["address"] for write in data["writes"]} - {data["address"]}
    mapped = _mapped(data)
    return all(missed(mapped, address, Access.WRITE).within is not None for address in others)


def _is_ring(data: Mapping[str, Any]) -> bool:
    """Whether the ring is one: of 8 descriptors or a multiple, mapped, the one in question ready, and at its place.

    Its length is given in pieces of 128 bytes (82574 data sheet 10.2.5.6).
    """
    ring = data["ring"]
    bus = ring["base"] + data["index"] * DESCRIPTOR
    ready = (data["index"] - ring["head"]) % ring["count"] < (ring["tail"] - ring["head"]) % ring["count"]
    places = all(0 <= ring[end] < ring["count"] for end in ("head", "tail"))
    if data["mappings"] is not None:
        last = ring["base"] + ring["count"] * DESCRIPTOR - 1
        places = places and missed(_mapped(data), last, Access.WRITE).within is not None
    return ring["count"] % 8 == 0 and places and ready and _leads(data, bus, data["place"])


def _leads(data: Mapping[str, Any], address: int, physical: int) -> bool:
    """Whether the domain maps an address to a physical one; without a domain it is that itself."""
    if data["mappings"] is None:
        return address == physical
    within = missed(_mapped(data), address, Access.WRITE).within
    return within is not None and within.physical + address - within.start == physical


def _led(judged: Judgement, evidence: StepEvidence, data: Mapping[str, Any], ref: str) -> Judgement:
    """Add to the judgement of a control that the bytes were looked for where the NIC's tables lead."""
    right = data["leads"] == data["physical"] and _leads(data, data["address"], data["physical"])
    verdict = WitnessVerdict.CONFIRMS if right else WitnessVerdict.DENIES
    leads = "nowhere" if data["leads"] is None else f"to {data['leads']:#x}"
    walk = _witness(evidence, "walk", verdict, f"the tables lead {leads} from {data['address']:#x}", ref)
    judged = replace(judged, witnesses=(*judged.witnesses, walk))
    if right or judged.outcome is not Outcome.PASS:
        return judged
    finding = replace(judged.findings[0], outcome=Outcome.ERROR, text=f"looked elsewhere: {walk.evidence}")
    return replace(judged, findings=(finding,))


def _explained(judged: Judgement, evidence: StepEvidence, data: Mapping[str, Any]) -> Judgement:
    """Tell with the finding which mapping was missed; a domain that maps the address contradicts a block."""
    [finding] = judged.findings
    passes = finding.outcome is Outcome.PASS
    if data["mappings"] is None:  # there is no domain
        if not passes:
            return judged
        finding = replace(finding, outcome=Outcome.ERROR, text=f"{finding.text}, but what its domain maps is unknown")
        return replace(judged, findings=(finding,))
    wrong = _contradicting(evidence, data) if passes else ""
    if wrong:
        finding = replace(finding, outcome=Outcome.ERROR, text=f"{finding.text}: contradiction: {wrong}")
    return replace(judged, findings=(replace(finding, text=f"{finding.text}; {told_of(data)}"),))


def _contradicting(evidence: StepEvidence, data: Mapping[str, Any]) -> str:
    """Tell where the tables are not those of a domain that maps what the driver laid and does not map the address."""
    if data["leads"] is not None:
        return f"the tables lead to {data['leads']:#x}"
    mapped = _mapped(data)
    if missed(mapped, data["address"], Access.WRITE).within is not None:
        return "its domain maps the address"
    if data["strays"] and missed(mapped, data["own"], Access.WRITE).within is None:
        return f"its domain does not map the buffer that the driver had laid there, at {data['own']:#x}"
    if data["unmapped"] and not _taken_out(evidence, data):
        return "no mapping of the buffer was taken out of the tables and put back"
    return ""


def _taken_out(evidence: StepEvidence, data: Mapping[str, Any]) -> bool:
    """Whether an entry of the tables that led to the buffer was cleared, and put back afterwards."""
    changes = [
        (entry.kind, entry.data["address"], bytes.fromhex(entry.data["old"]), bytes.fromhex(entry.data["new"]))
        for entry in evidence.entries
        if entry.source == "tables" and entry.kind in ("broken", "healed")
    ]
    return any(
        kind == "broken"
        and int.from_bytes(old, "little") & _FRAME == data["physical"] & _FRAME
        and not any(new)
        and ("healed", place, new, old) in changes[number:]
        for number, (kind, place, old, new) in enumerate(changes)
    )


def _address(descriptor: bytes) -> int:
    return int.from_bytes(descriptor[:ADDRESS], "little")


def _witness(evidence: StepEvidence, name: str, verdict: WitnessVerdict, text: str, ref: str) -> Witness:
    return Witness(name=name, step=evidence.index, verdict=verdict, evidence=text, refs=(ref,))
