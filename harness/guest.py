"""A booted or restored guest: its machine, a verified SSH connection and the agent that answers."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

from harness.agent_link import AgentLink
from harness.errors import InfraError, WaitTimeout
from harness.machine import taken
from harness.machine.launch import Machine
from harness.machine.taken import Within
from harness.ssh import Completed, Ssh
from harness.waiting import Deadline

#: Where the agent listens in the guest, and what it says on its stderr (images/guest/init).
AGENT_PORT, AGENT_LOG = 7000, "/run/vtd-agent.log"

#: Seconds from `cont` to the agent's answer, where it was not measured; about 15 times what one TCG core needs.
BOOT_S = 120.0

#: Under what the time from `cont` of a restored guest to its agent's answer is noted, with its template.
_READY = "ready"


class Guest:
    """A guest that answered, `boot_s` seconds after it was let run; made by `Guest.boot`.

    Its machine stays its maker's to stop.
    """

    def __init__(
        self, machine: Machine, ssh: Ssh, agent: AgentLink, hello: dict[str, Any], stack: ExitStack, *, boot_s: float
    ) -> None:
        self.boot_s = boot_s
        self.machine = machine
        self.ssh = ssh
        self.agent = agent
        self.hello = hello
        self._stack = stack

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @classmethod
    def boot(cls, machine: Machine, *, deadline_s: float | None = None) -> Guest:
        """Let the guest run, from its first instruction or from where it was saved, until its agent answers over SSH.

        A restored guest then gets the right time; how far it was off is journalled. Announcements and calls of the
        agent are journalled (source `agent`). Raises GuestPanic, LaunchError or MachineHalted as soon as the guest or
        QEMU is gone, LaunchError with the console's last lines when the deadline passes. Without `deadline_s`, that
        follows from what the same took before.
        """
        given = _within(machine) if deadline_s is None else Within(deadline_s, f"{deadline_s:.0f} s are given to it")
        deadline = Deadline.after(given.seconds)
        try:
            with machine.explaining(), ExitStack() as stack:
                machine.cont()
                ssh, agent, hello = _connect(machine, stack, deadline)
                if machine.restored:
                    _set_clock(machine, agent)
                took = deadline.elapsed_s
                machine.journal.record("process", "ready", boot_s=round(took, 3), hello=hello)
                if machine.template is not None:
                    taken.note(machine.template.directory, _READY, took)
                return cls(machine, ssh, agent, hello, stack.pop_all(), boot_s=took)
        except WaitTimeout as error:
            message = f"the guest did not become ready ({given.why}): {error.message}"
            raise machine.launch_error(message) from error

    def hang_up(self) -> None:
        """Close the connection to a guest that was halted at its reset; nothing that it still said is heard."""
        self.machine.line.close()  # first, so that nothing is sent to who comes next
        self.close()
        self.machine.line.renew()

    def again(self) -> None:
        """Let a machine that was reset, and hung up on, run until the agent of its new boot answers; as `boot`."""
        template = self.machine.template
        booted_s = self.boot_s if template is None else template.boot_s
        given = taken.within(booted_s, "its boot", factor=8, floor=60, otherwise=BOOT_S)
        deadline = Deadline.after(given.seconds)
        machine = self.machine
        try:
            with machine.explaining(), ExitStack() as stack:
                machine.cont()
                self.ssh, self.agent, self.hello = _connect(machine, stack, deadline)
                machine.journal.record("process", "ready", boot_s=round(deadline.elapsed_s, 3), hello=self.hello)
                self._stack = stack.pop_all()
        except WaitTimeout as error:
            message = f"the guest did not come back from its reset ({given.why}): {error.message}"
            raise machine.launch_error(message) from error

    def settle(self) -> bytes:
        """Bring a guest that is about to be saved to rest, and give what its next SSH server has said first.

        Whatever every restored guest will do has been done once by then, so that its code is in memory, and nobody is
        connected: the agent waits, and the server has greeted.
        """
        for operation in ("kmsg", "iommu_state", "pci_list"):
            self.agent.call(operation)
        self.ssh.hang_up()
        self.close()
        return self.machine.line.greeting(Deadline.after(BOOT_S), [self.machine.abort])

    def close(self) -> None:
        """End the SSH connection, and with it what the agent has made."""
        self._stack.close()

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float = 30.0) -> Completed:
        """Run `argv` in the guest; see `Ssh.run`."""
        with self.machine.explaining():
            done = self.ssh.run(argv, stdin=stdin, timeout_s=timeout_s)
        self.machine.journal.record("ssh", "run", argv=list(argv), status=done.status)
        return done

    def pci_address(self, qdev_id: str) -> str:
        """The address (`0000:01:00.0`) of the PCI device `qdev_id`, with the bus numbers the guest has given out."""
        for bus in self.machine.monitor.execute("query-pci"):
            for device in _pci_devices(bus["devices"]):
                if device["qdev_id"] == qdev_id:
                    return f"0000:{device['bus']:02x}:{device['slot']:02x}.{device['function']:x}"
        raise InfraError(f"QEMU has no PCI device '{qdev_id}'")


def _within(machine: Machine) -> Within:
    """What a guest is given until it is ready: by what the same took, or else by what it took to boot."""
    template = machine.template
    if template is None:
        return taken.within(None, "such a boot", factor=1, floor=0, otherwise=BOOT_S)
    restored = taken.read(template.directory).get(_READY)
    if restored is None and template.boot_s is not None:
        return taken.within(template.boot_s, "its boot", factor=4, floor=30, otherwise=BOOT_S)
    return taken.within(restored, "a start from its template", factor=20, floor=30, otherwise=BOOT_S)


def _connect(machine: Machine, stack: ExitStack, deadline: Deadline) -> tuple[Ssh, AgentLink, dict[str, Any]]:
    """Connect to a machine that runs, until `stack` ends, and hear what its agent says first."""
    ssh = stack.enter_context(
        Ssh.connect(
            machine.line,
            client=machine.keys.client,
            host_public=machine.keys.host_public,
            deadline=deadline,
            abort=[machine.abort],
        )
    )
    agent = _attach(machine, ssh)
    return ssh, agent, agent.call("hello", within_s=deadline.remaining_s)


def _attach(machine: Machine, ssh: Ssh) -> AgentLink:
    journal = machine.journal

    def announce(message: dict[str, Any]) -> None:
        journal.record("agent", str(message["event"]), **{k: v for k, v in message.items() if k != "event"})

    def record_call(call: dict[str, Any]) -> None:
        journal.record("agent", "call", **call)

    def last_words() -> str:
        return ssh.run(["tail", "-c", "2000", AGENT_LOG]).stdout.decode("utf-8", errors="replace")

    return AgentLink(
        ssh.forward(AGENT_PORT), on_event=announce, on_call=record_call, last_words=last_words, abort=[machine.abort]
    )


def _set_clock(machine: Machine, agent: AgentLink) -> None:
    """Set the guest's clock, which went on from when the guest was saved; it is then late by at most `within_s`."""
    deadline = Deadline.after(BOOT_S)
    behind_ns = agent.call("set_clock", within_s=deadline.remaining_s, realtime_ns=time.time_ns())["behind_ns"]
    machine.journal.record("agent", "clock", behind_s=round(behind_ns / 1e9, 6), within_s=round(deadline.elapsed_s, 6))


def _pci_devices(devices: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """All devices of a bus in `query-pci`, those behind bridges included."""
    for device in devices:
        yield device
        yield from _pci_devices(device.get("pci_bridge", {}).get("devices", ()))
