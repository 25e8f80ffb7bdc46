"""A guest of the platform guest, from its start to its end, with the devices that it was handed."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from harness.errors import InfraError
from harness.evidence import GuestJournal, Journal, VariantDirectory
from harness.guest import Guest
from harness.machine.spec import MachineSpec
from harness.nested.machine import start_on
from harness.nested.platform import FarImage, Platform

#: Seconds for QEMU to take a device: it resets it, and pins and maps all of the guest's memory. Measured: 3.
_HANDED_S = 60.0

#: Seconds for the guest to enumerate a device that its QEMU was given.
_SEEN_S = 30.0

#: hmp_gpa2hpa of QEMU's monitor/hmp-cmds-target.c: it looks the page up in its own /proc/self/pagemap.
_HOST_PHYSICAL = re.compile(r"Host physical address for 0x[0-9a-f]+ \([^)]*\) is 0x([0-9a-f]+)")


class NestedGuest:
    """A running guest of the platform; made by `start`, ended by `stop`.

    `devices` are the PCI addresses in this guest of the devices that it was handed, by name. Its kernel's log is read
    into the journal as `NAME/kmsg`, with a marker at the begin and the end of each step.
    """

    def __init__(self, name: str, guest: Guest, journal: GuestJournal, stack: ExitStack) -> None:
        self.name = name
        self.guest = guest
        self.journal = journal
        self.devices: dict[str, str] = {}
        self._stack = stack

    @classmethod
    def start(
        cls,
        name: str,
        spec: MachineSpec,
        image: FarImage,
        platform: Platform,
        *,
        directory: VariantDirectory,
        journal: Journal,
        taps: Mapping[str, tuple[str, str]],
    ) -> NestedGuest:
        """Start QEMU on the platform and let the guest boot until its agent answers; its files go below `directory`."""
        own = GuestJournal(journal, name)
        with ExitStack() as stack:
            machine = stack.enter_context(
                start_on(platform, spec, image=image, directory=directory.guest(name), journal=own, taps=taps)
            )
            guest = stack.enter_context(Guest.boot(machine))
            return cls(name, guest, own, stack.pop_all())

    def stop(self) -> None:
        """Hear the guest's log out, then end it and its QEMU; nothing of it is left on the platform."""
        self.collect()
        self.end()

    def end(self) -> None:
        """End QEMU as it is."""
        self._stack.close()

    def call(self, op: str, /, *, within_s: float = 30.0, **args: Any) -> dict[str, Any]:
        """Ask the agent in this guest for `op`, as `Session.call` does."""
        return self.guest.agent.call(op, within_s=within_s, **args)

    def hand(self, name: str, address: str) -> dict[str, Any]:
        """Give this guest the platform's device at `address`, which is bound to vfio-pci; tells what the guest sees.

        Raises MonitorError with QEMU's words, which are VFIO's, if that refuses.
        """
        port = f"rp{len(self.devices)}"
        machine = self.guest.machine
        with machine.explaining():
            machine.monitor.execute_raw(
                "device_add",
                {"driver": "vfio-pci", "id": name, "host": address, "bus": port},
                timeout_s=_HANDED_S,
            )
        mine = self.guest.pci_address(name)
        facts = self.call("pci_wait", bdf=mine, timeout_s=_SEEN_S, within_s=_SEEN_S + 5)
        self.devices[name] = mine
        return facts

    def host_physical(self, address: int) -> int:
        """Where a page of this guest lies in the platform's memory, as the platform's kernel tells this QEMU."""
        command = {"command-line": f"gpa2hpa {address}"}
        said = str(self.guest.machine.monitor.execute_raw("human-monitor-command", command, timeout_s=_SEEN_S))
        match = _HOST_PHYSICAL.search(said)
        if match is None:
            raise InfraError(f"QEMU of guest '{self.name}' does not tell where {address:#x} is: {said.strip()}")
        return int(match[1], 16)

    def mark(self, text: str) -> str:
        """Put a marker into the guest's log, read the log up to it, and return the marker."""
        marker = f"{text} {secrets.token_hex(4)}"
        self.call("mark", text=marker)
        self.collect()
        return marker

    def collect(self) -> None:
        """Read what the guest's log holds by now into the journal."""
        answer = self.call("kmsg")
        if answer["lost"]:
            self.journal.record("kmsg", "lost")
        for entry in answer["entries"]:
            self.journal.record("kmsg", "line", **entry)
