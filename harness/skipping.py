"""Why a scenario is skipped: what it needs that this host, its QEMU, or a lab host does not have."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from harness.devices.host_nic import HostNic
from harness.equipment import HostFacts
from harness.lab.host import LabFacts
from harness.machine.properties import resolve
from harness.machine.spec import IommuSpec
from harness.scenario.model import Scenario
from harness.scenario.version import satisfies


def reasons_to_skip(scenario: Scenario, drivers: Iterable[str], host: HostFacts) -> Iterator[str]:
    """Tell what this host, its QEMU or the lab host lacks; `drivers` are what QEMU calls the scenario's devices."""
    requires, version = scenario.requires, host.qemu.version
    if requires.qemu is not None and not satisfies(version, requires.qemu):
        yield f"needs QEMU {requires.qemu}; found {version}"
    if requires.kvm is False and host.accelerator == "kvm":
        yield "needs a host without KVM"
    if requires.kvm and not scenario.refused and host.accelerator != "kvm":
        yield f"needs KVM; {host.accelerator_reason}"
    if requires.kvm and scenario.refused and not _kvm_opens(host):
        yield "needs a /dev/kvm that opens"
    yield from _lacks_host(scenario, host.lab)
    for driver in drivers:
        if not host.facts.offers(driver):
            yield f"needs a QEMU with '{driver}'; {version} has none"
    for options in scenario.machine.iommu:
        yield from (problem.why for problem in resolve(IommuSpec(options), host.facts).problems if problem.unsupported)


def _kvm_opens(host: HostFacts) -> bool:
    return os.access("/dev/kvm", os.R_OK | os.W_OK) if host.lab is None else not host.lab.survey.kvm


def _lacks_host(scenario: Scenario, lab: LabFacts | None) -> Iterator[str]:
    """Tell what keeps the machine from a lab host that it needs, or from the one that was named."""
    nics = [device for device in scenario.devices.values() if isinstance(device, HostNic)]
    if lab is None:
        if nics:
            yield f"needs {len(nics)} NIC of a lab host: make run HOST=ssh://root@NAME NIC=ADDRESS (--host, --nic)"
        elif scenario.requires.host == "lab":
            yield "needs a lab host: make run HOST=ssh://USER@NAME (--host)"
        return
    if len(nics) > len(lab.nics):
        yield f"needs {len(nics)} NIC of the lab host, and {len(lab.nics)} may be taken: NIC=ADDRESS (--nic)"
    for device, nic in zip(nics, lab.nics, strict=False):
        if nic.id != device.identification:
            yield f"needs a NIC {device.identification} ({device.like}); {nic.address} of {lab.name} is {nic.id}"
    for _, why in scenario.kept_here():
        yield f"runs on this host only: {why}"
