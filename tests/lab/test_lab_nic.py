"""The scenario with a NIC of a lab host, on a guest that plays one: its VT-d and its e1000e are those of QEMU."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from harness import runner, suite
from harness.catalog import scenario_of
from harness.equipment import open_host
from harness.evidence import JOURNAL, RunDirectory, read_journal
from harness.lab.host import survey_lab
from harness.lab.shelf import SHELF
from harness.nested.platform import MOUNTED
from harness.plan import plan_all
from harness.result import unseen
from harness.verdict import Outcome

HERE = Path(__file__).parent
SCENARIO = HERE.parents[1] / "scenarios/lab-nic.yaml"
IMAGE = "debian-13"


@pytest.fixture
def lab_host(tmp_path, monkeypatch):
    """Equipment whose machines run in the guest, reached by the SSH line that this has; and the session on that guest.

    What is sent to other hosts is on its disk already, so it is put on the shelf by a link.
    """
    monkeypatch.setenv("VTD_TIMEOUT_SCALE", "4")  # three levels of emulation
    host = open_host(print)
    plan = plan_all([HERE / "platform.yaml"], host)[0]
    directory = RunDirectory.create(tmp_path / "platform").variant("lab-host", "")
    qemu, image = host.store.movable_qemu(print), host.image(IMAGE)
    with directory.journal() as journal, runner.running(plan, directory, host, journal) as session:
        runner._plug_devices(plan, scenario_of(plan.definition), session)
        nic = session.device("nic")
        session.bind_kernel_driver(nic)
        shelf = f"/root/{SHELF}"
        commands = (
            f"mkdir -p {shelf}",
            f"ln -s {MOUNTED}/qemu {shelf}/qemu-{qemu.digest[:16]}",
            f"ln -s {MOUNTED}/guests/{IMAGE} {shelf}/{IMAGE}-{image.digest[:16]}",
            "echo 8 >/proc/sys/kernel/printk",
        )
        assert session.guest.run(["sh", "-ec", "; ".join(commands)]).status == 0

        @contextlib.contextmanager
        def connect():
            yield session.guest.ssh

        lab = survey_lab("a guest", connect, [nic.address], qemu=qemu, cache=tmp_path, progress=print)
        yield host.on(lab), session


@pytest.mark.guest
def test_a_handed_nic_is_blocked_by_the_unit_of_its_host_and_comes_back(lab_host, tmp_path):
    host, session = lab_host
    run = suite.begin(tmp_path / "runs", host.describe(), prove=False)
    plan = plan_all([SCENARIO], host)[0]
    assert plan.skip is None

    result = suite.run_one(run, plan, host, prove=False, watch=unseen)

    assert result.outcome is Outcome.PASS, result.reason
    assert session.call("pci", bdf=session.device("nic").address, within_s=60.0)["driver"] == "e1000e"
    witnessed = {name: witness.verdict.value for name, witness in result.witnesses.items()}
    assert witnessed["host-log"] == "confirms"
    journal = read_journal(run.variant(plan.scenario, plan.variant).path / JOURNAL)
    assert not [entry for entry in journal if (entry.source, entry.kind) == ("console", "unmarked")]
