"""A guest that reboots: it answers again if that was asked for, and ends the machine otherwise."""

from __future__ import annotations

import pytest

from harness.errors import HarnessError, LaunchError, OperationRefused
from harness.evidence import read_journal
from harness.guest import Guest
from harness.machine import reset
from harness.machine.spec import IommuSpec, MachineSpec
from harness.waiting import Deadline, wait_for

pytestmark = pytest.mark.guest

SPEC = MachineSpec(image="", kernel_args=("intel_iommu=on",), iommus=(IommuSpec({"intremap": True}),))


@pytest.mark.parametrize("guest_image", ["debian-13"], indirect=True)  # it boots twice
def test_only_a_reboot_that_was_asked_for_leads_to_another_boot(start_machine, guest_image, tmp_path) -> None:
    with start_machine(SPEC, guest_image) as machine, Guest.boot(machine) as guest:
        first = guest.hello["boot_id"]
        guest.agent.call("kmsg")
        with pytest.raises(OperationRefused, match="kernel or sysrq"):
            guest.agent.call("reboot", how="gently")

        assert reset.halt_at_reset(machine, lambda: guest.agent.tell("reboot", how="sysrq")) == "guest-reset"
        reset.reset(machine)
        guest.hang_up()
        with reset.booting_again(machine):
            guest.again()

        assert guest.hello["boot_id"] != first
        assert guest.agent.call("kmsg")["entries"][0]["seq"] == 0
        assert guest.run(["true"]).status == 0

        guest.agent.tell("reboot", how="sysrq")
        wait_for("QEMU to end", lambda: machine.process.poll() is not None, Deadline.after(20))
        with pytest.raises(HarnessError), machine.explaining():
            guest.agent.call("hello")
        assert isinstance(machine.abort(), LaunchError)

    entries = read_journal(tmp_path / "variant" / "journal.jsonl")
    told = [e for e in entries if (e.source, e.kind, e.data.get("name")) == ("qmp", "event", "RESET")]
    asked = [e for e in entries if (e.source, e.kind) == ("process", "reset")]
    assert len(told) == len(asked) >= 1
