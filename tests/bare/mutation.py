"""What the tests of mutants share: a recorded run, and ways to change one thing of its evidence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness import plan as planning
from harness import runner
from harness.equipment import HostFacts
from harness.evidence import JOURNAL, VariantDirectory
from harness.judge import judge_variant
from harness.result import unseen
from harness.verdict import Verdict


def run(host: HostFacts, directory: Path, text: str, *, prove: bool = False) -> Path:
    """Run the scenario `text` and give the directory of its one variant."""
    file = directory / "mutants.yaml"
    file.write_text(text, encoding="utf-8")
    (plan,) = planning.plan_all([file], host)
    variant = VariantDirectory(directory / "run" / plan.scenario / "default")
    variant.path.mkdir(parents=True)
    runner.run_plan(plan, variant, host, prove=prove, progress=unseen)
    return variant.path


def judged(path: Path) -> Verdict:
    return judge_variant(VariantDirectory(path))


Entry = dict[str, Any]
Flip = Callable[[Entry], bool]


def flipped(path: Path, step: int, phase: str, flip: Flip) -> bool:
    """Change the first entry of a phase of a step that `flip` takes; give whether there was one."""
    journal = path / JOURNAL
    entries = [json.loads(line) for line in journal.read_text().splitlines()]
    now = ""
    for entry in entries:
        if entry["step"] == step and (entry["source"], entry["kind"]) == ("observation", "phase"):
            now = entry["data"]["name"]
        if entry["step"] == step and now == phase and flip(entry):
            journal.write_text("".join(json.dumps(each) + "\n" for each in entries))
            return True
    return False


def of(source: str, kind: str, change: Callable[[Entry], None]) -> Flip:
    def flip(entry: Entry) -> bool:
        if (entry["source"], entry["kind"]) != (source, kind):
            return False
        before = json.dumps(entry["data"])
        change(entry["data"])
        return json.dumps(entry["data"]) != before

    return flip


def bits(key: str, mask: int) -> Callable[[Entry], None]:
    def change(data: Entry) -> None:
        data[key] ^= mask

    return change


def put(key: str, value: Any) -> Callable[[Entry], None]:
    def change(data: Entry) -> None:
        data[key] = value

    return change
