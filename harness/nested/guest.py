"""A guest of the platform guest, from its start to its end, with the devices that it was handed."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from itertools import count
from typing import Any

from harness.errors import InfraError
from harness.evidence import GuestJournal, Journal, VariantDirectory
from harness.guest import Guest
from harness.machine.spec import MachineSpec
from harness.nested.machine import start_on
from harness.nested.nic import GivenNic
from harness.nested.platform import FarImage, Platform
from harness.waiting import Deadline, wait_for

#: Seconds from `cont` to the agent's answer, ten times what emulated virtualisation needs: each exit of the guest runs
#: the platform's kernel and its QEMU, which are emulated.
_BOOT_S = 400.0

#: Seconds for QEMU to take a device: it resets it, and pins and maps all of the guest's memory. Measured: 3.
_HANDED_S = 60.0

#: Seconds for the guest to enumerate a device that its QEMU was given.
_SEEN_S = 30.0

#: hmp_gpa2hpa of QEMU's monitor/hmp-cmds-target.c: it looks the page up in its own /proc/self/pagemap.
_HOST_PHYSICAL = re.compile(r"Host physical address for 0x[0-9a-f]+ \([^)]*\) is 0x([0-9a-f]+)")


class NestedGuest:
    """A running guest of the platform; made by `start`, ended by `stop`.

    `devices` are the PCI addresses in this guest of the devices that it was handed or given, by name; `uplinks` has for
    each given NIC the platform's NIC that it goes through, and its driver; `virtualization` is what KVM uses for it.
    Its kernel's log is read into the journal as `NAME/kmsg`, with a marker at the begin and the end of each step.
    """

    def __init__(
        self, name: str, guest: Guest, journal: GuestJournal, stack: ExitStack, *, virtualization: str
    ) -> None:
        self.name = name
        self.virtualization = virtualization
        self.guest = guest
        self.journal = journal
        self.devices: dict[str, str] = {}
        self.uplinks: dict[str, tuple[str, str]] = {}
        self._ports: dict[str, int] = {}
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
        nics: Sequence[GivenNic] = (),
    ) -> NestedGuest:
        """Start QEMU on the platform and let the guest boot until its agent answers; its files go below `directory`.

        The bridges of its `nics` are there. Each NIC is given to it once it runs.
        """
        own = GuestJournal(journal, name)
        taps = {nic.name: (f"tap-{nic.name}"[:15], nic.bridge) for nic in nics}
        with ExitStack() as stack:
            machine = stack.enter_context(
                start_on(platform, spec, image=image, directory=directory.guest(name), journal=own, taps=taps)
            )
            guest = stack.enter_context(Guest.boot(machine, deadline_s=_BOOT_S))
            nested = cls(name, guest, own, stack, virtualization=platform.virtualization)
            for nic in nics:
                nested.give(nic)
            nested._stack = stack.pop_all()
            return nested

    def stop(self) -> None:
        """Hear the guest's log out, then end it and its QEMU; nothing of it is left on the platform."""
        self.collect()
        self.end()

    def kill(self) -> None:
        """Kill its QEMU at once, as a crash would, and wait until nothing of it is left on the platform."""
        process = self.guest.machine.process
        process.kill()
        beneath = self.guest.machine.beneath
        what = f"QEMU of guest '{self.name}' to be gone"
        wait_for(what, lambda: process.poll() is not None, Deadline.after(_SEEN_S), abort=beneath)
        self.end()

    def end(self) -> None:
        """End QEMU as it is."""
        self._stack.close()

    def call(self, op: str, /, *, within_s: float = 30.0, **args: Any) -> dict[str, Any]:
        """Ask the agent in this guest for `op`, as `Session.call` does."""
        with self.guest.machine.explaining():
            return self.guest.agent.call(op, within_s=within_s, **args)

    def hand(self, name: str, address: str, *, msix_exposed: bool = False) -> dict[str, Any]:
        """Give this guest the platform's device at `address`, which is bound to vfio-pci; tells what the guest sees.

        Raises MonitorError with QEMU's words, which are VFIO's, if that refuses.
        """
        # The table that QEMU emulates lies over the real one unless it is put into a BAR that the device has not
        # (vfio_pci_relocate_msix in hw/vfio/pci.c).
        relocated = {"x-msix-relocation": "bar4"} if msix_exposed else {}
        return self._plug({"driver": "vfio-pci", "id": name, "host": address, **relocated})

    def give(self, nic: GivenNic) -> dict[str, Any]:
        """Give this guest a NIC that its own QEMU makes; tells what the guest sees."""
        facts = self._plug(nic.qdev())
        self.uplinks[nic.name] = nic.via, nic.kernel_driver
        return facts

    def _plug(self, qdev: Mapping[str, Any]) -> dict[str, Any]:
        name, machine = str(qdev["id"]), self.guest.machine
        taken = {port for device, port in self._ports.items() if device in self.devices}
        port = next(number for number in count() if number not in taken)
        with machine.explaining():
            machine.monitor.execute_raw("device_add", {**qdev, "bus": f"rp{port}"}, timeout_s=_HANDED_S)
        mine = self.guest.pci_address(name)
        facts = self.call("pci_wait", bdf=mine, timeout_s=_SEEN_S, within_s=_SEEN_S + 5)
        self.devices[name], self._ports[name] = mine, port
        return facts

    def host_physical(self, address: int) -> int:
        """Where a page of this guest lies in the platform's memory, as the platform's kernel tells this QEMU."""
        command = {"command-line": f"gpa2hpa {address}"}
        said = str(self.guest.machine.monitor.execute_raw("human-monitor-command", command, timeout_s=_SEEN_S))
        match = _HOST_PHYSICAL.search(said)
        if match is None:
            raise InfraError(f"QEMU of guest '{self.name}' does not tell where {address:#x} is: {said.strip()}")
        return int(match[1], 16)

    def mark(self, text: str) -> None:
        """Put a marker into the guest's log, and read the log up to it; the journal has it as `NAME/kmsg`, `mark`."""
        marker = f"{text} {secrets.token_hex(4)}"
        self.journal.record("kmsg", "mark", marker=marker)
        self.call("mark", text=marker)
        self.collect()

    def collect(self) -> None:
        """Read what the guest's log holds by now into the journal."""
        answer = self.call("kmsg")
        if answer["lost"]:
            self.journal.record("kmsg", "lost")
        for entry in answer["entries"]:
            self.journal.record("kmsg", "line", **entry)
