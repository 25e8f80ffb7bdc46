"""A recorded run of one scenario, as the runner leaves it, made entry by entry so that tests can spoil any of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from harness.evidence import VariantDirectory
from harness.machine.argv import KERNEL_ARGS
from harness.machine.spec import MachineSpec
from harness.plan import Plan, PlannedDevice, PlannedStep
from harness.vtd.source_id import SourceId
from harness.witnesses.host_trace import WATCHED

VICTIM = 0x7BEE000
OWN = 0x100000
PHYSICAL = 0x7BEE000
BEFORE, PAYLOAD, OTHER = b"\x11" * 64, b"\x22" * 64, b"\x33" * 64

DEFINITION: dict[str, Any] = {
    "scenario": "recorded",
    "title": "A recorded proof",
    "devices": {"rogue": {"model": "edu"}},
    "steps": [
        {"assign": "rogue"},
        {"map": {"device": "rogue", "buffer": "own", "iova": OWN, "size": "64KiB"}},
        {"dma": {"device": "rogue", "write": 64, "to": "own"}, "expect": "landed"},
        {"plant": {"canary": "victim"}},
        {"dma": {"device": "rogue", "write": 64, "to": "victim"}, "expect": {"blocked": {"reason": "pte-write"}}},
    ],
    "counter_proof": ["iommu_off"],
}

CONTROL, ATTACK = 2, 4

Entry = dict[str, Any]


@dataclass
class Recording:
    """Journal entries of one run, to be changed before they are written."""

    entries: list[Entry] = field(default_factory=list)
    seq: int = 0

    def add(self, source: str, kind: str, step: int | None = None, **data: Any) -> None:
        entry = {"t": float(len(self.entries)), "source": source, "kind": kind, "step": step, "data": data}
        # What is added to a step that is over stands within it all the same.
        ends = (
            i for i, e in enumerate(self.entries) if step is not None and (e["kind"], e["step"]) == ("step-end", step)
        )
        self.entries.insert(next(ends, len(self.entries)), entry)

    def log(self, text: str, step: int | None = None) -> None:
        self.add("kmsg", "line", step, seq=self.seq, priority=6, us=self.seq, text=text)
        self.seq += 1

    def bytes_at(self, step: int, data: bytes, *, label: str) -> None:
        """Guest memory as it was read from outside."""
        self.add("memory", "read", step, label=label, gpa=PHYSICAL, size=len(data), sha256=sha256(data).hexdigest())

    def bytes_after(self, step: int, data: bytes) -> None:
        """Let other bytes have been found at the target after the DMA."""
        self.change(lambda e: e["step"] == step and e["data"].get("label") == "after", sha256=sha256(data).hexdigest())
        self.change(lambda e: e["step"] == step and e["source"] == "observation", after=data.hex())

    def begin(self, step: int) -> None:
        self.add("runner", "step-begin", step, marker=f"step {step + 1} begin aa{step}")
        self.log(f"vtd-harness: step {step + 1} begin aa{step}", step)

    def end(self, step: int) -> None:
        self.log(f"vtd-harness: step {step + 1} end bb{step}", step)
        self.add("runner", "step-end", step, marker=f"step {step + 1} end bb{step}")

    def drop(self, wanted: Callable[[Entry], bool]) -> None:
        kept = [entry for entry in self.entries if not wanted(entry)]
        assert len(kept) < len(self.entries), "the recording has no such entry"
        self.entries = kept

    def change(self, wanted: Callable[[Entry], bool], **data: Any) -> None:
        found = [entry for entry in self.entries if wanted(entry)]
        assert found, "the recording has no such entry"
        for entry in found:
            entry["data"] = {**entry["data"], **data}

    def write(self, directory: Path, *, protection_removed: str | None = None) -> VariantDirectory:
        directory.mkdir(parents=True, exist_ok=True)
        variant = VariantDirectory(directory)
        variant.write_json("plan.json", plan(protection_removed))
        console = [entry["data"] for entry in self.entries if entry["source"] == "console"]
        for number, data in enumerate(console, start=1):
            data["number"] = number
        lines = "".join(json.dumps(entry) + "\n" for entry in self.entries)
        variant.file("journal.jsonl").write_text(lines, encoding="utf-8")
        variant.file("trace.log").write_text("".join(map(_traced, self.entries)), encoding="utf-8")
        variant.file("console.log").write_text("".join(f"{data['text']}\n" for data in console), encoding="utf-8")
        return variant


def _traced(entry: Entry) -> str:
    """Give what QEMU's trace says of an entry that was read from it."""
    if entry["source"] != "trace" or entry["kind"] not in _LINES:
        return ""
    return "".join(f"7@{entry['t']:.6f}:{line}\n" for line in _LINES[entry["kind"]](entry["data"]))


def _sid(data: dict[str, Any]) -> str:
    return f"{SourceId.parse(data['source_id']).value:#x}"


def _fault_lines(data: dict[str, Any]) -> list[str]:
    places = [data["first"], *[data["last"]] * (data["count"] - 1)]
    write = int(data["access"] == "write")
    return [f"vtd_dmar_fault sid {_sid(data)} fault {data['reason']} addr {place:#x} write {write}" for place in places]


#: The lines that stand for an entry, by its kind.
_LINES: dict[str, Callable[[dict[str, Any]], list[str]]] = {
    "fault": _fault_lines,
    "recorded": lambda data: [f"vtd_frr_new {data['text']}"],
    "unread": lambda data: [data["text"]],
    "disabled": lambda data: ["vtd_fault_disabled Fault processing disabled for DMA"] * data.get("count", 1),
}


def plan(protection_removed: str | None = None) -> Plan:
    steps = tuple(
        PlannedStep(index=index, keyword=next(iter(step)), line=index + 5, text=next(iter(step)))
        for index, step in enumerate(DEFINITION["steps"])
    )
    device = PlannedDevice(name="rogue", model="edu", slot=0, qdev={}, wire=None, plugged=True, behind_bridge=False)
    return Plan(
        scenario="recorded",
        variant="",
        title="A recorded proof",
        tags=(),
        source="scenarios/recorded.yaml",
        line=1,
        machine=MachineSpec(image="debian-13"),
        devices=(device,),
        steps=steps,
        counter_proofs=("iommu_off",),
        definition=DEFINITION,
        text="",
        protection_removed=protection_removed,
    )


def proof() -> Recording:
    """A run in which everything is as it must be."""
    recording = _opened()
    _dma(recording, CONTROL, address=OWN, target="own", moved=True)
    _dma(recording, ATTACK, address=VICTIM, target="victim", moved=False)
    return _ended(recording)


def failed() -> Recording:
    """A run whose positive control was refused, as all witnesses agree, and whose attack was blocked as it must be."""
    recording = _opened()
    _dma(recording, CONTROL, address=OWN, target="own", moved=False)
    _dma(recording, ATTACK, address=VICTIM, target="victim", moved=False)
    return _ended(recording)


def let_through() -> Recording:
    """A run in which the attack landed, and nobody reported a thing."""
    recording = _opened()
    _dma(recording, CONTROL, address=OWN, target="own", moved=True)
    _dma(recording, ATTACK, address=VICTIM, target="victim", moved=True)
    return _ended(recording)


def counter_proof() -> Recording:
    """The same without protection: both DMAs land, and nobody reports a thing."""
    recording = _opened("iommu_off")
    _dma(recording, CONTROL, address=0x5000, target="own", moved=True)
    _dma(recording, ATTACK, address=VICTIM, target="victim", moved=True)
    return _ended(recording)


def _opened(removed: str | None = None) -> Recording:
    recording = Recording()
    recording.add("runner", "begin", id="recorded", protection_removed=removed)
    recording.add("process", "start", argv=["qemu-system-x86_64", "-incoming", "defer"])
    recording.add("process", "qemu", version="10.0.2")
    recording.add("process", "restored", template="0" * 24)
    recording.add("process", "ready", hello={"cmdline": " ".join(KERNEL_ARGS)})
    recording.log("Linux version 6.12")
    recording.log("random: crng reseeded due to virtual machine fork")
    recording.add("runner", "device", name="rogue", address="0000:01:00.0", source_id="01:00.0")
    recording.add("trace", "watching", events=list(WATCHED))
    for index in (0, 1, 3):
        recording.begin(index)
        recording.end(index)
    return recording


def _ended(recording: Recording) -> Recording:
    recording.add("runner", "collected")
    recording.add("process", "stop", rung="quit", exit_status=0)
    recording.add("runner", "end")
    return recording


def _dma(recording: Recording, step: int, *, address: int, target: str, moved: bool) -> None:
    blocked = not moved
    recording.begin(step)
    recording.add(
        "agent", "dma", step, device="rogue", bdf="0000:01:00.0", direction="to-memory", address=address, length=64,
        purpose="attack",
    )  # fmt: skip
    recording.bytes_at(step, BEFORE, label="before")
    recording.bytes_at(step, PAYLOAD if moved else BEFORE, label="after")
    recording.add(
        "observation", "dma", step, device="rogue", function="0000:01:00.0", source_id="01:00.0", access="write",
        address=address, physical=PHYSICAL, length=64, target=target, bystanders={}, payload=PAYLOAD.hex(),
        before=BEFORE.hex(), after=(PAYLOAD if moved else BEFORE).hex(),
    )  # fmt: skip
    if blocked:
        line = (
            f"DMAR: [DMA Write NO_PASID] Request device [01:00.0] fault addr {address:#x} [fault reason 0x05] PTE Write"
        )
        recording.add(
            "trace", "fault", step,
            source_id="01:00.0", access="write", reason=5, first=address, last=address + 60, count=16,
        )  # fmt: skip
        recording.log("DMAR: DRHD: handling fault status reg 2", step)
        recording.log(line, step)
        recording.add("console", "line", step, number=7, text=f"[    5.4] {line}")
    recording.end(step)
