"""A virtual function's reset through its mailbox, and making such functions, over registers and files of the tests."""

import igb_vf
import protocol
import pytest
import sriov

CTRL, STATUS, MAILBOX, MEMORY = 0x0000, 0x0008, 0x0C40, 0x0800
REQUEST, ACKNOWLEDGE, TAKE, ANSWERED, RESETTING = 1, 2, 4, 16, 64
OK, REFUSED = 1 << 31, 1 << 30


class Physical:
    """Registers of a virtual function, with the driver of the physical function behind them.

    The mailbox is the function's once it has asked for it and `busy` times were refused; it is the driver's again with
    the request. The answer stands in its memory when `late` reads have passed.
    """

    def __init__(self, *, answer=1 | OK, busy=0, late=0, resetting=0, link=True):
        self.answer, self.busy, self.late, self.resetting, self.link = answer, busy, late, resetting, link
        self.writes = []
        self.memory = 0
        self.taken = self.requested = False

    def read32(self, offset):
        if offset == MAILBOX:
            if self.resetting:
                self.resetting -= 1
                return RESETTING
            if self.requested and self.late:
                self.late -= 1
                return 0
            return (TAKE if self.taken else 0) | (ANSWERED if self.requested and self.answer is not None else 0)
        if offset == MEMORY:
            return self.memory
        return {STATUS: 2 if self.link else 0}.get(offset, 0)

    def write32(self, offset, value):
        self.writes.append((offset, value))
        if offset == MEMORY:
            assert self.taken, "the mailbox was written by who has it not"
            self.memory = value
        if offset == MAILBOX and value == TAKE:
            self.busy, self.taken = max(0, self.busy - 1), not self.busy
        if offset == MAILBOX and value == REQUEST:
            assert self.memory == 1, "a request without a message"
            self.requested, self.taken = True, False
            self.memory = self.answer

    write64 = write32


@pytest.fixture(autouse=True)
def _patience(monkeypatch):
    """No test waits as long as a NIC may take."""
    waited = igb_vf.wait_for
    monkeypatch.setattr(igb_vf, "wait_for", lambda what, condition, _s: waited(what, condition, 0.2, every_s=0.001))


def opened(physical):
    return igb_vf.VirtualNic(igb_vf.IGB_VF, physical, mailbox=None, announcer=None)


@pytest.mark.parametrize("answer", [1 | OK, 1 | REFUSED], ids=["with an address", "without one"])
def test_a_function_is_reset_and_its_driver_answers(answer):
    physical = Physical(answer=answer, busy=2, late=2, resetting=2)
    opened(physical)

    told = [(offset, value) for offset, value in physical.writes if offset in (CTRL, MAILBOX, MEMORY)]
    assert told[0] == (CTRL, 1 << 26)
    assert [value for offset, value in told if offset == MEMORY] == [1]
    mailbox = [value for offset, value in told if offset == MAILBOX]
    assert mailbox == [TAKE, TAKE, TAKE, REQUEST, TAKE, ACKNOWLEDGE]
    assert (0x1528, 0xFFFFFFFF) in physical.writes


@pytest.mark.parametrize(
    ("physical", "words"),
    [
        (Physical(resetting=10**9), "waited 0.2 s for the physical function to be up"),
        (Physical(busy=10**9), "waited 0.2 s for the mailbox"),
        (Physical(answer=None), "waited 0.2 s for the physical function's answer"),
        (Physical(link=False), "waited 0.2 s for the NIC's link"),
        (Physical(answer=1), "answered the reset with 0x1"),
        (Physical(answer=2 | OK), "answered the reset with 0x80000002"),
        (Physical(answer=0), "answered the reset with 0x0"),
    ],
    ids=[
        "still resetting",
        "mailbox taken",
        "no answer",
        "no link",
        "neither yes nor no",
        "another message",
        "nothing",
    ],
)
def test_a_function_that_is_not_ready_is_refused(physical, words):
    with pytest.raises(protocol.Refused, match=words):
        opened(physical)


def test_a_function_that_did_not_come_up_is_not_asked_anything():
    physical = Physical(resetting=10**9)
    with pytest.raises(protocol.Refused):
        opened(physical)
    assert physical.writes == []


def test_closing_one_stops_its_rings_and_leaves_the_physical_function_on():
    physical = Physical()
    nic = opened(physical)
    physical.writes.clear()
    nic.quiesce()

    assert physical.writes == [(0x2828, 0), (0x3828, 0)]


# -- making them ------------------------------------------------------------------------------------------------------


class Sysfs:
    """What the kernel shows of an igb with room for seven functions; `makes` is how many it really makes."""

    def __init__(self, monkeypatch, tmp_path, *, total=7, makes=None, network="eth1", ip_status=0):
        self.path, self.makes, self.done = tmp_path, makes, []
        (tmp_path / "sriov_totalvfs").write_text(f"{total}\n")
        status = {"returncode": ip_status, "stderr": "RTNETLINK answers: no such thing\n"}
        monkeypatch.setattr(sriov, "present", lambda _bdf: str(tmp_path))
        monkeypatch.setattr(sriov, "netdev_of", lambda _bdf: network)
        monkeypatch.setattr(sriov, "bring_up", lambda name, _s: self.done.append(("up", name)))
        monkeypatch.setattr(sriov, "write_text", self.write)
        monkeypatch.setattr(sriov.subprocess, "run", lambda argv, **_: self.run(argv, status))
        waited = sriov.wait_for
        monkeypatch.setattr(sriov, "wait_for", lambda what, condition, _s: waited(what, condition, 0.05, every_s=0.01))

    def write(self, path, text):
        name = path.removeprefix(f"{self.path}/")
        self.done.append((name, text))
        if name == "sriov_numvfs":
            for number in range(int(text) if self.makes is None else self.makes):
                (self.path / f"virtfn{number}").symlink_to(f"../0000:01:10.{2 * number}")

    def run(self, argv, status):
        self.done.append(("ip", *argv[3:]))
        return type("Done", (), status)


def enable(*macs):
    return sriov.VirtualFunctions().sriov_enable(bdf="0000:01:00.0", macs=list(macs))


def test_functions_are_made_given_their_addresses_and_left_to_no_driver(monkeypatch, tmp_path):
    sysfs = Sysfs(monkeypatch, tmp_path)

    assert enable("52:54:00:00:00:01", "52:54:00:00:00:02") == {
        "bdfs": ["0000:01:10.0", "0000:01:10.2"],
        "netdev": "eth1",
    }
    assert sysfs.done == [
        ("up", "eth1"),
        ("sriov_drivers_autoprobe", "0"),
        ("sriov_numvfs", "2"),
        ("ip", "eth1", "vf", "0", "mac", "52:54:00:00:00:01"),
        ("ip", "eth1", "vf", "1", "mac", "52:54:00:00:00:02"),
        ("sriov_drivers_autoprobe", "1"),
        ("up", "eth1"),
    ]


@pytest.mark.parametrize(
    ("kernel", "macs", "words"),
    [
        ({}, (), "has 7 virtual functions, not 0"),
        ({"total": 1}, ("a", "b"), "has 1 virtual functions, not 2"),
        ({"network": None}, ("a",), "0000:01:00.0 has no network interface"),
        ({"makes": 1}, ("a", "b"), "waited 0.05 s for the functions of 0000:01:00.0"),
        ({"ip_status": 2}, ("a",), "ip link set eth1 vf 0 mac a: RTNETLINK answers: no such thing"),
    ],
)
def test_what_the_kernel_does_not_do_is_told(monkeypatch, tmp_path, kernel, macs, words):
    Sysfs(monkeypatch, tmp_path, **kernel)
    with pytest.raises(protocol.Refused, match=words):
        enable(*macs)
