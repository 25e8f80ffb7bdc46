"""A NIC of another host on its way to vfio-pci and back, under a kernel that is made of files."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from harness.errors import InfraError
from harness.lab import nic_there
from harness.lab.lending import _PROGRAM, lent
from harness.lab.nic_there import Nic, RefusedError
from harness.nested.sending import start_program
from harness.waiting import Deadline, wait_for
from tests.lab.fake_host import NIC


class Notes:
    def __init__(self):
        self.told = []

    def record(self, _source, kind, /, **data):
        self.told.append((kind, data))


def back(lab, driver="e1000e"):
    wait_for("the NIC to be back", lambda: lab.driven_by() == driver, Deadline.after(10.0))


def test_a_nic_goes_out_and_comes_back_to_the_driver_that_it_had(ssh, lab):
    notes = Notes()
    with lent(ssh, [NIC], notes, root=str(lab.root)) as loans:
        assert loans[NIC].driver == "e1000e"
        assert (loans[NIC].group, loans[NIC].id) == ("7", "8086:10d3")
        assert lab.driven_by() == "vfio-pci"
        assert lab.override() == "vfio-pci"
    assert lab.driven_by() == "e1000e"
    assert lab.override() == ""
    assert notes.told[-1] == ("returned", {"address": NIC, "before": "e1000e", "driver": "e1000e", "kept": False})
    assert lab.moves == [("unbind", "e1000e"), ("probe", ""), ("unbind", "vfio-pci"), ("bind", "e1000e")]


def test_a_lost_connection_brings_the_nic_back(ssh, lab):
    with lent(ssh, [NIC], Notes(), root=str(lab.root)):
        ssh.channels[0].cut()
        back(lab)


def test_a_killed_near_end_brings_the_nic_back(lab):
    """All of the near end is one process here, which has no chance to say a word."""
    program = (
        "import sys,time\n"
        "from tests.pipes import PipeSsh\nfrom harness.lab.lending import lent\n"
        "from tests.lab.test_lending import Notes\n"
        "with lent(PipeSsh(), [sys.argv[1]], Notes(), root=sys.argv[2]):\n print('out', flush=True)\n time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, NIC, str(lab.root)], stdout=subprocess.PIPE) as near:
        assert near.stdout.readline() == b"out\n"
        assert lab.driven_by() == "vfio-pci"
        near.send_signal(signal.SIGKILL)
        near.wait(10)
    back(lab)
    wait_for("the override to be gone", lambda: lab.override() == "", Deadline.after(5.0))


def test_a_lender_that_hangs_up_or_is_asked_to_end_does_not_leave_the_nic_behind(ssh, lab):
    with lent(ssh, [NIC], Notes(), root=str(lab.root)):
        for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
            os.kill(ssh.channels[0].process.pid, number)
        time.sleep(0.1)
        assert lab.driven_by() == "vfio-pci"
    assert lab.driven_by() == "e1000e"


def test_what_a_killed_lender_left_behind_is_brought_back_by_the_next(ssh, lab):
    with pytest.raises(InfraError, match="lender of NICs ended"), lent(ssh, [NIC], Notes(), root=str(lab.root)):
        ssh.channels[0].die()
    assert lab.driven_by() == "vfio-pci"
    assert Nic(NIC, str(lab.root)).describe()["left_behind"]

    with lent(ssh, [NIC], Notes(), root=str(lab.root)) as loans:
        assert loans[NIC].driver == "e1000e"
    assert (lab.driven_by(), lab.override()) == ("e1000e", "")


def test_a_nic_that_a_killed_lender_left_without_a_driver_is_brought_back_by_the_next(ssh, lab):
    lab.broken.add("vfio-pci")
    job = json.dumps({"nics": [NIC], "root": str(lab.root)}).encode() + b"\n"
    with contextlib.closing(start_program(ssh, _PROGRAM, job)) as channel:
        wait_for("the NIC to be between drivers", lambda: lab.driven_by() is None, Deadline.after(10.0))
        channel.die()
    assert Nic(NIC, str(lab.root)).describe()["left_behind"]

    lab.broken.clear()
    with lent(ssh, [NIC], Notes(), root=str(lab.root)) as loans:
        assert loans[NIC].driver == "e1000e"
    assert (lab.driven_by(), lab.override()) == ("e1000e", "")
    assert not Nic(NIC, str(lab.root)).describe()["left_behind"]


def test_an_override_that_a_killed_lender_left_is_taken_back_where_the_nic_was_still_with_its_driver(ssh, lab):
    record = lab.root / "run/vtd-harness" / f"nic-{NIC}"
    record.parent.mkdir(parents=True)
    record.write_text(json.dumps({"driver": "e1000e", "override": "(null)"}))
    (lab.pci / "devices" / NIC / "driver_override").write_text("vfio-pci\n")
    assert not Nic(NIC, str(lab.root)).describe()["left_behind"]

    with lent(ssh, [NIC], Notes(), root=str(lab.root)):
        pass
    assert (lab.driven_by(), lab.override()) == ("e1000e", "")


def test_a_nic_that_somebody_gave_to_another_driver_goes_back_to_that(ssh, lab):
    lab.device("0000:04:00.0", driver="igb", group="8")
    record = lab.root / "run/vtd-harness/nic-0000:04:00.0"
    record.parent.mkdir(parents=True)
    record.write_text(json.dumps({"driver": "e1000e", "override": "(null)"}))
    with lent(ssh, ["0000:04:00.0"], Notes(), root=str(lab.root)) as loans:
        assert loans["0000:04:00.0"].driver == "igb"
    assert lab.driven_by("0000:04:00.0") == "igb"


def test_two_runs_cannot_have_one_nic(ssh, lab):
    with lent(ssh, [NIC], Notes(), root=str(lab.root)):
        with pytest.raises(InfraError, match=f"another run has {NIC}"), lent(ssh, [NIC], Notes(), root=str(lab.root)):
            pass
        assert lab.driven_by() == "vfio-pci"
    assert lab.driven_by() == "e1000e"


def test_a_driver_that_does_not_take_its_nic_back_is_told(ssh, lab, monkeypatch):
    with pytest.raises(InfraError, match="is driven by nobody, not by e1000e") as caught:  # noqa: SIM117
        with lent(ssh, [NIC], Notes(), root=str(lab.root)):
            lab.broken.add("e1000e")
    assert "drivers_probe" in caught.value.hint


def test_a_nic_that_vfio_does_not_take_is_given_back_at_once(lab, monkeypatch):
    monkeypatch.setattr(nic_there, "_MOVED_S", 0.3)
    lab.broken.add("vfio-pci")
    nic = Nic(NIC, str(lab.root))
    with pytest.raises(RefusedError, match="not by vfio-pci"):
        nic.take()
    assert (lab.driven_by(), lab.override()) == ("e1000e", "")


def test_a_nic_without_a_driver_and_one_of_vfio_go_back_to_that(ssh, lab):
    free, vfio = "0000:04:00.0", "0000:05:00.0"
    lab.device(free, driver=None, group="8")
    lab.device(vfio, driver="vfio-pci", group="9")
    with lent(ssh, [free, vfio], Notes(), root=str(lab.root)) as loans:
        assert [loan.driver for loan in loans.values()] == [None, "vfio-pci"]
        assert lab.driven_by(free) == "vfio-pci"
    assert lab.driven_by(free) is None
    assert lab.driven_by(vfio) == "vfio-pci"
    assert not any(Nic(address, str(lab.root)).describe()["left_behind"] for address in (free, vfio))


def test_where_one_of_two_is_refused_the_other_comes_back(ssh, lab):
    lab.device("0000:04:00.0", driver="igb", group=None)
    with (
        pytest.raises(InfraError, match="in no IOMMU group"),
        lent(ssh, [NIC, "0000:04:00.0"], Notes(), root=str(lab.root)),
    ):
        pass
    back(lab)


def obstacle(lab, address=NIC):
    found = Nic(address, str(lab.root)).obstacle()
    return None if found is None else found[0]


def test_a_group_is_viable_with_bridges_and_unbound_members_only(lab):
    lab.device("0000:00:1c.0", driver="pcieport", klass="0x060400")
    lab.device("0000:03:00.1", driver=None)
    assert obstacle(lab) is None
    lab.device("0000:03:00.2", driver="ahci", klass="0x010601")
    assert obstacle(lab) == f"group 7 of {NIC} is not viable: 0000:03:00.2 is in it too, driven by ahci"


def test_what_is_no_nic_or_not_there_is_refused(lab):
    lab.device("0000:05:00.0", driver="nvme", klass="0x010802")
    assert obstacle(lab, "0000:05:00.0") == "0000:05:00.0 is no NIC (class 010802)"
    assert obstacle(lab, "0000:06:00.0") == "there is no PCI device 0000:06:00.0"


@pytest.mark.parametrize(
    ("file", "text", "use"),
    [
        ("sys/class/net/eth0/master/x", "", "is a port of a bridge, bond or team"),
        ("sys/class/net/eth0/upper_eth0.100/x", "", "carries eth0.100"),
        ("proc/net/route", "Iface\tDestination\neth0\t00000000\n", "carries a route of the host"),
        ("proc/net/if_inet6", "fe80" + "0" * 27 + "1 02 40 00 80 eth0\n", "has the address fe80" + "0" * 27 + "1"),
        ("proc/net/if_inet6", "fe80" + "0" * 27 + "1 02 40 20 80 eth0\n", None),
        ("proc/net/route", "Iface\tDestination\neth01\t00000000\n", None),
    ],
)
@pytest.mark.parametrize("place", ["net/eth0", "virtio0/net/eth0"])
def test_a_nic_that_the_host_talks_through_is_not_taken(lab, place, file, text, use):
    (lab.pci / "devices" / NIC / place).mkdir(parents=True)
    path = lab.root / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    assert obstacle(lab) == (None if use is None else f"{NIC} is in use: eth0 {use}")


def test_a_nic_with_virtual_functions_is_not_taken(lab):
    (lab.pci / "devices" / NIC / "virtfn0").symlink_to(lab.pci / "devices" / NIC)
    assert obstacle(lab) == f"{NIC} has virtual functions, which go with it"
