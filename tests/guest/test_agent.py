"""The resident agent of a guest: what one connection to it leaves to the next, and how its death is told."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from harness.agent_link import AgentLink
from harness.errors import AgentError, MonitorError, OperationRefused, SshError, WaitTimeout
from harness.guest import AGENT_PORT, Guest, _attach
from harness.process import StopRung
from harness.ssh import Ssh
from harness.waiting import Deadline, wait_for

pytestmark = pytest.mark.guest

ROGUE = "0000:01:00.0"


@pytest.fixture
def guest(restored_guest) -> Guest:
    return restored_guest


def assign(agent: AgentLink) -> None:
    """Give the device behind rp0 to a domain, with a buffer mapped and bus mastering on."""
    agent.call("pci_wait", bdf=ROGUE)
    agent.call("domain_attach", domain="d", bdf=ROGUE)
    agent.call("buffer_create", name="staging", size=4 << 20)
    agent.call("domain_map", domain="d", buffer="staging", iova=0x10000)
    mailbox = {"buffer": "staging", "iova": 0x10000}
    agent.call("device_open", device="rogue", bdf=ROGUE, model="edu", via="vfio", mailbox=mailbox)


def stopped(guest: Guest) -> AgentLink:
    guest.agent.call("stop")
    return _attach(guest.machine, guest.ssh)


def closed(guest: Guest) -> AgentLink:
    guest.agent._channel._channel.close()
    return _attach(guest.machine, guest.ssh)


def hung_up(guest: Guest) -> AgentLink:
    guest.ssh.hang_up()
    guest.ssh = reconnected(guest)
    return _attach(guest.machine, guest.ssh)


def reconnected(guest: Guest) -> Ssh:
    keys = guest.machine.keys
    return Ssh.connect(
        guest.machine.line,
        client=keys.client,
        host_public=keys.host_public,
        deadline=Deadline.after(60),
        abort=[guest.machine.abort],
    )


@pytest.mark.parametrize("end", [stopped, closed, hung_up])
def test_the_next_connection_begins_with_nothing_of_the_one_before(guest, end: Callable[[Guest], AgentLink]) -> None:
    guest.machine.device_add({"driver": "edu", "id": "rogue", "bus": "rp0"})
    before = guest.agent
    assign(before)
    before.call("kmsg")
    assert before.call("kmsg")["entries"] == []
    assert before.call("pci", bdf=ROGUE)["bus_master"]
    agent = end(guest)
    assert not agent.call("pci", bdf=ROGUE)["bus_master"]
    assert agent.call("domain_info") == {"domains": {}}
    with pytest.raises(OperationRefused, match=r"no open device 'rogue'; open: none"):
        agent.call("device_close", device="rogue")
    with pytest.raises(OperationRefused, match=r"no buffer 'staging'; known: none"):
        agent.call("buffer_read", name="staging", length=4)
    locked = agent.call("run", argv=["sh", "-c", "grep VmLck /proc/$PPID/status"])["stdout"]
    assert locked.split()[1] == "0", "the buffer's memory is still there"
    assert agent.call("kmsg")["entries"][0]["seq"] == 0
    assign(agent)
    guest.ssh.close()


def test_a_second_connection_waits_for_the_end_of_the_first(guest) -> None:
    other = guest.ssh.forward(AGENT_PORT)
    other.send_line('{"id": 7, "op": "hello"}')
    guest.agent.call("run", argv=["true"])
    with pytest.raises(WaitTimeout):
        other.read_line(Deadline.after(0.3))
    guest.agent.call("stop")
    line = other.read_line(Deadline.after(60))
    assert line is not None
    assert json.loads(line)["id"] == 7


def test_a_killed_agent_is_told_and_nothing_else_is_lost(guest) -> None:
    guest.run(["sh", "-c", "kill -9 $(pidof python3)"])
    with pytest.raises(AgentError, match=r"^the agent ended during 'hello'"):
        guest.agent.call("hello", within_s=60)
    with pytest.raises(SshError, match=f"port {AGENT_PORT} of the guest to answer"):
        guest.ssh.forward(AGENT_PORT)
    assert guest.run(["true"]).status == 0


#: An agent of which every request is the last.
BROKEN = r"""
set -e
kill -9 $(pidof python3)
cp -r /usr/lib/vtd-agent /run/broken
rm -rf /run/broken/__pycache__
cat >>/run/broken/protocol.py <<'END'


def answer(line, operations):
    raise RuntimeError("it went wrong")
END
python3 -I /run/broken/agent.py 7000 2>/run/vtd-agent.log
"""


def test_an_agent_that_ends_with_an_error_of_its_own_is_told_with_that(guest) -> None:
    done = guest.run(["sh", "-c", BROKEN])
    assert done.status == 0, done
    agent = _attach(guest.machine, guest.ssh)
    with pytest.raises(AgentError, match=r"(?s)ended during 'hello': Traceback .*RuntimeError: it went wrong$"):
        agent.call("hello", within_s=60)


def test_bytes_that_nobody_reads_do_not_keep_the_machine_from_ending(guest) -> None:
    flood = guest.ssh.open(["sh", "-c", "sleep 1; cat /dev/zero"])
    guest.close()

    def deaf() -> bool:
        try:
            guest.machine.monitor.execute("query-status", timeout_s=1.0)
        except MonitorError as error:
            return "no answer within" in error.message
        return False

    wait_for("QEMU to wait for a reader", deaf, Deadline.after(60))
    assert guest.machine.stop() is StopRung.QUIT
    del flood


def test_a_mark_shows_on_a_console_that_leaves_out_all_but_errors(guest: Guest) -> None:
    guest.run(["sh", "-c", "echo 4 >/proc/sys/kernel/printk"])
    guest.agent.call("mark", text="for the log alone")
    guest.agent.call("mark", text="seen on both", level=3)
    console = guest.machine.console.path
    wait_for("the mark on the console", lambda: "vtd-harness: seen on both" in console.read_text(), Deadline.after(20))
    assert "for the log alone" not in console.read_text()
    assert [entry["priority"] for entry in guest.agent.call("kmsg")["entries"][-2:]] == [6, 3]


def test_what_user_space_writes_into_the_log_is_told_from_what_the_kernel_says(guest):
    forged = "DMAR: [DMA Write NO_PASID] Request device [01:00.0] fault addr 0x1000 [fault reason 0x05] forged"
    guest.agent.call("kmsg")
    guest.run(["sh", "-c", f"echo '<3>{forged}' >/dev/kmsg"])

    entries = guest.agent.call("kmsg")["entries"]

    assert [entry["facility"] for entry in entries if entry["text"] == forged] == [1]
