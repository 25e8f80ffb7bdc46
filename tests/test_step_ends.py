"""What halted in a step ends the run there: the step's end is not recorded, however well its witnesses answered."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from harness import runner
from harness.errors import MachineHalted
from harness.evidence import Journal, read_journal


@pytest.mark.parametrize(("halted", "may_end"), [(False, False), (True, False), (True, True)])
def test_a_machine_that_halted_in_a_step_ends_the_run_before_the_steps_end(
    halted, may_end, tmp_path, monkeypatch
) -> None:
    error = MachineHalted("QEMU told of RESET", state="running", event="RESET")
    happened: list[str] = []
    steps = [
        SimpleNamespace(ends_machine=may_end, run=lambda _, number=number: happened.append(number)) for number in "12"
    ]
    planned = [SimpleNamespace(index=number, text="", keyword="dma", line=1) for number in range(2)]
    plan = SimpleNamespace(id="s", definition=None, steps=planned, protection_removed=None)
    monkeypatch.setattr(runner, "scenario_of", lambda _: SimpleNamespace(steps=steps))
    session = SimpleNamespace(abort=lambda: error if halted and happened else None)
    witnesses = SimpleNamespace(begin=lambda label: label, end=lambda label: label)
    with Journal(tmp_path / "journal.jsonl") as journal:
        run = (plan, session, witnesses, journal, lambda _: None)
        if halted and not may_end:
            with pytest.raises(MachineHalted):
                runner._each_step(*run)
        else:
            runner._each_step(*run)
    kinds = [entry.kind for entry in read_journal(tmp_path / "journal.jsonl")]
    assert kinds == (["step-begin"] if halted and not may_end else ["step-begin", "step-end"] * 2)
    assert happened == (["1"] if halted and not may_end else ["1", "2"])
