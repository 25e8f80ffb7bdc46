"""A run directory as a real run leaves it, made through the same journal and directory classes.

`python tests/report/example_run.py DIRECTORY` makes one with its reports, to look at.
"""

from __future__ import annotations

import random
import sys
from dataclasses import dataclass, field
from pathlib import Path

from harness.evidence import RunDirectory, VariantDirectory, write_json
from harness.report.results import store
from harness.result import Result, summarise
from harness.verdict import CounterProof, Finding, Outcome, Verdict, Witness, WitnessVerdict

START = 1795334400.0
HOST = {
    "os": "Debian GNU/Linux 12 (bookworm)",
    "cpus": 2,
    "memory_mib": 8192,
    "accelerator": "tcg",
    "accelerator_reason": "/dev/kvm is not there",
    "qemu": "10.0.2",
    "qemu_digest": "ab" * 32,
}
IMAGES = (
    {"name": "debian-12", "kernel_release": "6.1.0-41-amd64", "digest": "12" * 32},
    {"name": "debian-13", "kernel_release": "6.12.57+deb13-amd64", "digest": "13" * 32},
)
FAULT = (
    "DMAR: [DMA Write NO_PASID] Request device [01:00.0] fault addr 0x1c7a000 "
    "[fault reason 0x05] PTE Write access is not set"
)


@dataclass
class Writer:
    """Writes one variant. `blocked` is what the attack's witnesses say: "all", "leak" or "silent-log"."""

    run: RunDirectory
    scenario: str
    title: str
    variant: str = ""
    tags: tuple[str, ...] = ("isolation",)
    blocked: str = "all"
    proofs: dict[str, CounterProof] = field(default_factory=dict)
    cut_at: int | None = None
    skip: str | None = None
    finished: bool = True
    start: str = "cold"

    @property
    def id(self) -> str:
        return f"{self.scenario}[{self.variant}]" if self.variant else self.scenario

    def steps(self) -> list[dict[str, object]]:
        texts = [
            ("assign", "assign 'rogue' (edu) to user space in a domain of its own", ""),
            ("map", "map 64 KiB of 'scratch' at 0x100000 for 'rogue', read and write", ""),
            ("dma", "'rogue' writes 64 bytes to 0x100000", "landed"),
            ("plant", "plant the canary 'victim', 4 KiB that no domain of 'rogue' maps", ""),
            ("dma", "'rogue' writes 64 bytes to 'victim'", "blocked, reason 0x05 pte-write"),
        ]
        return [
            {"index": i, "keyword": k, "line": 12 + 2 * i, "text": t, "expect_text": e}
            for i, (k, t, e) in enumerate(texts)
        ]

    def write(self) -> Result:
        directory = self.run.variant(self.scenario, self.variant)
        plan = {
            "scenario": self.scenario,
            "variant": self.variant,
            "title": self.title,
            "tags": list(self.tags),
            "source": f"scenarios/{self.scenario}.yaml",
            "line": 1,
            "steps": self.steps(),
            "counter_proofs": list(self.proofs),
            "skip": self.skip,
        }
        directory.write_json("plan.json", plan)
        (directory.path / "scenario.yaml").write_text(f"scenario: {self.scenario}\ntitle: {self.title}\n")
        if not self.skip:
            directory.write_json("image.json", IMAGES[len(self.scenario) % 2])
            self.journal(directory)
            for name in ("console.log", "trace.log", "qemu.argv", "qemu.stderr", "repro.sh"):
                (directory.path / name).write_text(f"{name} of {self.id}\n")
            for name, proof in self.proofs.items():
                if proof is not CounterProof.NOT_RUN:
                    self.journal(directory.counter(name))
        verdict = self.verdict()
        result = Result(
            id=self.id,
            scenario=self.scenario,
            variant=self.variant,
            title=self.title,
            tags=self.tags,
            outcome=verdict.outcome,
            reason=verdict.reason,
            duration_s=0.0 if self.skip else 8.1 + len(self.id) / 10,
            start=self.start,
            witnesses=summarise(verdict.witnesses),
            counter_proofs=self.proofs,
            evidence=str(directory.path.relative_to(self.run.path)),
        )
        if self.finished:
            directory.write_json("verdict.json", verdict)
            store(directory, result)
        return result

    def journal(self, directory: VariantDirectory) -> None:
        wobble = random.Random(self.id)  # noqa: S311 - only has to look lifelike
        with directory.journal() as journal:
            t = START + wobble.random()
            journal.record("process", "started", t=t, pid=4711)
            if self.start == "template":
                journal.record("process", "restored", t=t + 0.1, template="0" * 24)
            journal.record("qmp", "event", t=t + 0.2, event="RESUME")
            t += 6.3
            for step in self.steps():
                if self.cut_at is not None and int(str(step["index"])) > self.cut_at:
                    return
                journal.step = int(str(step["index"]))
                journal.record("runner", "step-begin", t=t, **{k: step[k] for k in ("keyword", "line", "text")})
                journal.record("memory", "read", t=t + 0.01, label="before", gpa=0x1C7A000, size=64, data="a5" * 64)
                if step["keyword"] == "dma":
                    self.attack(journal, t + 0.05, blocked=journal.step == 4)
                t += 0.12 + wobble.random() / 2
                if self.cut_at == journal.step:
                    return
                journal.record("runner", "step-end", t=t, duration_s=0.3)
                journal.step = None

    def attack(self, journal, t: float, *, blocked: bool) -> None:
        journal.record(
            "agent", "dma", t=t, device="rogue", bdf="0000:01:00.0", direction="to-memory",
            address=0x1C7A000 if blocked else 0x100000, length=64, purpose="attack" if blocked else "control",
        )  # fmt: skip
        if blocked and self.blocked != "leak":
            journal.record(
                "trace", "fault", t=t + 0.004, source_id="01:00.0", access="write", reason=5,
                first=0x1C7A000, last=0x1C7A03C, count=16,
            )  # fmt: skip
            if self.blocked == "all":
                journal.record("kmsg", "record", t=t + 0.03, seq=511, us=6_410_233, text=FAULT)
        journal.record("memory", "read", t=t + 0.06, label="after", gpa=0x1C7A000, size=64, data="a5" * 64)

    def verdict(self) -> Verdict:
        if self.skip:
            return Verdict(outcome=Outcome.SKIP, reason=self.skip)
        c, d, m = WitnessVerdict.CONFIRMS, WitnessVerdict.DENIES, WitnessVerdict.MISSING
        log, bytes_ = (c if self.blocked == "all" else m), (d if self.blocked == "leak" else c)
        trace = m if self.blocked == "leak" else c
        fault = "write by 01:00.0 at 0x1c7a000"
        logged = f"{fault}, reason 0x05 pte-write" if log is c else "no fault was logged"
        traced = f"{fault}..0x1c7a03c, reason 0x05 pte-write, 16 reports" if trace is c else "no fault was traced"
        kept = "'victim' is unchanged" if bytes_ is c else "64 bytes at 0x1c7a000 are the rogue's payload"
        witnesses = (
            _say("announcement", 2, c, "write of 64 bytes at 0x100000", "journal.jsonl:9"),
            _say("bytes", 2, c, "all 64 bytes arrived at 0x1c6f000"),
            _say("others", 2, c, "nobody faulted"),
            _say("announcement", 4, c, "write of 64 bytes at 0x1c7a000", "journal.jsonl:18"),
            _say("guest-log", 4, log, logged, "journal.jsonl:20"),
            _say("host-trace", 4, trace, traced, "journal.jsonl:19"),
            _say("bytes", 4, bytes_, kept, "journal.jsonl:21"),
            _say("others", 4, c, "nobody else faulted"),
        )
        outcome, text = {
            "all": (Outcome.PASS, "the write of 64 bytes to 'victim' was blocked: reason 0x05 pte-write"),
            "leak": (
                Outcome.FAIL,
                "the write of 64 bytes to 'victim' was not blocked: its payload stands at 0x1c7a000",
            ),
            "silent-log": (Outcome.ERROR, "one witness is silent; guest-log: no fault was logged"),
        }[self.blocked]
        control = Finding(outcome=Outcome.PASS, text="the write of 64 bytes to 'scratch' landed", step=2)
        findings = [control, Finding(outcome=outcome, text=text, step=4)]
        for name, proof in self.proofs.items():
            if proof is not CounterProof.NOT_RUN:
                good = proof is CounterProof.RED
                told = f"red as it must be: without protection ({name}) all 2 DMAs reached their targets"
                findings.append(
                    Finding(
                        outcome=Outcome.PASS if good else Outcome.FAIL,
                        text=told if good else f"vacuous: without protection ({name}), step 5 (dma) is still harmless",
                        refs=(f"counter/{name}",),
                    )
                )
        return Verdict(
            outcome=outcome, reason=text, findings=tuple(findings), witnesses=witnesses, counter_proofs=self.proofs
        )


def _say(name, step, verdict, text, *refs):
    return Witness(name=name, step=step, verdict=verdict, evidence=text, refs=refs)


RED = {"iommu_off": CounterProof.RED, "passthrough": CounterProof.RED}


def make_run(root: Path, *, troubled: bool = True) -> tuple[RunDirectory, list[Result]]:
    """Write a run of several variants; `troubled` adds a failure, an error, a vacuous, a skipped and a cut-off one."""
    run = RunDirectory.create(root)
    write_json(run.path / "run.json", {"schema": 1, "host": HOST, "prove": True})
    title = "A device cannot write outside its protection domain"
    writers = [
        Writer(run, "unmapped-write-is-blocked", title, tags=("isolation", "smoke"), proofs=RED),
        Writer(run, "read-only-map-refuses-a-write", "A read-only mapping refuses a write", proofs=RED),
        Writer(run, "cross-device-denial", "Two devices in two domains cannot reach each other", proofs=RED),
        *(Writer(run, "truth-table", "What the kernel's command line really switches on", v, ("boot",))
          for v in ("intel_iommu=on,iommu=pt", "intel_iommu=off,iommu=strict")),
        Writer(run, "hotplug-ten-times", "A NIC comes and goes ten times under traffic", tags=("nic", "hotplug")),
    ]  # fmt: skip
    if troubled:
        trouble = "A forbidden address on a NIC's ring is blocked"
        moved = "A device moved to another domain loses the first"
        vacuous = {"iommu_off": CounterProof.VACUOUS}
        writers += [
            Writer(run, "moved-device-loses-the-first", moved, blocked="leak"),
            Writer(run, "rogue-descriptor", trouble, blocked="silent-log", tags=("nic",)),
            Writer(run, "write-only-map", "A write-only mapping refuses a read", proofs=vacuous),
            Writer(run, "needs-kvm", "Speed under KVM", skip="needs KVM; found /dev/kvm missing", tags=("speed",)),
        ]  # fmt: skip
    return run, [writer.write() for writer in writers]


if __name__ == "__main__":
    from harness.report.write import write_reports

    made, _ = make_run(Path(sys.argv[1]), troubled="--good" not in sys.argv)
    if "--good" not in sys.argv:
        Writer(made, "cut-off", "The run ended in the middle of this one", cut_at=3, finished=False).write()
    write_reports(made)
    print(made.path / "index.html")
