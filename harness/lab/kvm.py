"""Whether KVM works on a lab host, found out by running a vCPU there, as `harness.host.accelerator` does here."""

from __future__ import annotations

import tempfile
from pathlib import Path

from harness.errors import WaitTimeout
from harness.host.accelerator import DEADLINE_S, KvmFinding, firmware, vcpu_argv, vcpu_problem
from harness.lab.survey import Survey
from harness.nested.kept import Job, KeptProcess
from harness.nested.machine import Place
from harness.waiting import Deadline, wait_for

_FIRMWARE, _SCRATCH = 40, 41


def probe_kvm_there(place: Place, survey: Survey) -> KvmFinding:
    """Run one vCPU with KVM on the host."""
    if survey.kvm:
        return KvmFinding(usable=False, reason=survey.kvm)
    problem = run_vcpu_there(place, "kvm", cpu="host")
    reason = f"no vCPU runs with KVM there: {problem}" if problem else "a vCPU ran there"
    return KvmFinding(usable=problem is None, reason=reason)


def run_vcpu_there(place: Place, accelerator: str, *, cpu: str) -> str | None:
    """Have one vCPU of the host's QEMU run its nine bytes; what went wrong, None if nothing."""
    job = Job(
        argv=vcpu_argv(place.qemu, accelerator, cpu=cpu, firmware_fd=_FIRMWARE),
        env=place.qemu.env,
        streams={},
        outputs={"stderr": 1},
        data={_FIRMWARE: firmware()},
        scratch=_SCRATCH,
    )
    with tempfile.TemporaryDirectory(prefix="vtd-") as directory:
        said = Path(directory) / "stderr"
        with KeptProcess(place.ssh, job, {"stderr": said}) as process:
            try:
                wait_for("a vCPU to run its code", lambda: process.poll() is not None, Deadline.after(DEADLINE_S))
            except WaitTimeout:
                return vcpu_problem(None, "")
            return vcpu_problem(process.poll(), process.stderr_text())
