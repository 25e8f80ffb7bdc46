"""Which accelerator is wanted, and a first look at KVM: nine bytes run by a vCPU.

A /dev/kvm that opens does not prove that a vCPU runs, and a vCPU that runs does not prove that a kernel does: that one
is booted with it, which `harness.equipment` sees to.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import InfraError, StorageError
from harness.evidence import write_json
from harness.images.qemu_build import QemuBuild
from harness.machine.parts import QemuBinary
from harness.machine.spec import Accelerator
from harness.waiting import timeout_scale

#: Environment variable that names the accelerator: auto (KVM where a vCPU is seen to run with it), tcg or kvm.
ACCELERATOR = "VTD_ACCELERATOR"

_KVM = Path("/dev/kvm")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_FIRMWARE_BYTES = 64 * 1024
#: What the firmware tells; isa-debug-exit makes QEMU end with twice that plus one (hw/misc/debugexit.c).
_TOLD = 0x2A
_EXIT_STATUS = _TOLD * 2 + 1
#: Real-mode code at the reset vector, 16 bytes below the end: mov dx, 0x501; mov al, TOLD; out dx, al; hlt; jmp to hlt.
_RESET_VECTOR = bytes([0xBA, 0x01, 0x05, 0xB0, _TOLD, 0xEE, 0xF4, 0xEB, 0xFD]).ljust(16, b"\xf4")
#: Seconds for those nine bytes.
DEADLINE_S = 10.0
_TOO_SLOW = f"a vCPU did not run its nine bytes of code within {DEADLINE_S:.0f} s"


@dataclass(frozen=True, slots=True)
class KvmFinding:
    """Whether guests can run with KVM, and why not, or how that is known."""

    usable: bool
    reason: str


def wanted_accelerator() -> str:
    """Give what the environment asks for: `auto`, `tcg` or `kvm`; InfraError for any other word."""
    wanted = os.environ.get(ACCELERATOR) or "auto"
    if wanted not in ("auto", "tcg", "kvm"):
        raise InfraError(f"{ACCELERATOR} is '{wanted}'", hint="set it to auto, tcg or kvm")
    return wanted


def kvm_missing(reason: str) -> InfraError:
    """Give the error for who asks for KVM where it cannot be had."""
    return InfraError(f"{ACCELERATOR} asks for KVM, but {reason}", hint=f"unset {ACCELERATOR}, or set it to tcg")


def host_identity() -> list[str | int]:
    """Give what makes an earlier finding on KVM worthless: another boot of the host, or another /dev/kvm."""
    device = _KVM.stat()
    return [_BOOT_ID.read_text(encoding="ascii").strip(), device.st_ino, device.st_ctime_ns]


def choose_accelerator(probe: Callable[[], KvmFinding], wanted: str | None = None) -> tuple[Accelerator, str]:
    """Choose by what is `wanted` (the environment's word, else `auto`) and by a `probe` of KVM, and give the reason.

    Raises InfraError if it cannot be had.
    """
    wanted = wanted or wanted_accelerator()
    if wanted == "tcg":
        return "tcg", f"asked for by {ACCELERATOR}"
    kvm = probe()
    if not kvm.usable and wanted == "kvm":
        raise kvm_missing(kvm.reason)
    return ("kvm" if kvm.usable else "tcg"), kvm.reason


def probe_kvm(qemu: QemuBuild, memory: Path | None = None) -> KvmFinding:
    """Run one vCPU of `qemu` with KVM, in the arrangement the machines under test use. Takes a fraction of a second.

    What was found since the host booted is kept in the file `memory`, and believed for the same QEMU and device.
    """
    if not _KVM.exists():
        return KvmFinding(usable=False, reason=f"{_KVM} is not there")
    if not os.access(_KVM, os.R_OK | os.W_OK):
        return KvmFinding(usable=False, reason=f"no permission to open {_KVM}")
    asked = [qemu.digest, qemu.version, *host_identity()]
    known = _recalled(memory, asked)
    if known is not None:
        return known
    problem = run_vcpu(qemu, "kvm", cpu="host")
    found = KvmFinding(
        usable=problem is None, reason=f"no vCPU runs with KVM here: {problem}" if problem else "a vCPU ran"
    )
    if memory is not None and problem != _TOO_SLOW:  # a busy host is no property of KVM
        with contextlib.suppress(OSError, StorageError):  # a cache that cannot be written: it is asked anew each time
            memory.parent.mkdir(parents=True, exist_ok=True)
            write_json(memory, {"asked": asked, "usable": found.usable, "reason": found.reason})
    return found


def _recalled(memory: Path | None, asked: Sequence[object]) -> KvmFinding | None:
    try:
        told = json.loads(memory.read_text(encoding="utf-8")) if memory else {}
        return KvmFinding(told["usable"], told["reason"]) if told["asked"] == asked else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def run_vcpu(qemu: QemuBuild, accelerator: str, *, cpu: str) -> str | None:
    """Have one vCPU run firmware of nine bytes that ends QEMU with a known status; what went wrong, None if nothing."""
    descriptor = os.memfd_create("firmware")
    try:
        os.write(descriptor, firmware())
        done = subprocess.run(
            ["setpriv", "--pdeathsig", "KILL", "--", *vcpu_argv(qemu, accelerator, cpu=cpu, firmware_fd=descriptor)],
            env={**os.environ, **qemu.env},
            pass_fds=(descriptor,),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=DEADLINE_S * timeout_scale(),
            check=False,
        )
    except subprocess.TimeoutExpired:
        return _TOO_SLOW
    except OSError as error:
        return f"QEMU could not be started: {error.strerror}"
    finally:
        os.close(descriptor)
    return vcpu_problem(done.returncode, done.stderr)


def firmware() -> bytes:
    """Give what the vCPU runs: it ends QEMU with a status that nothing else gives."""
    return _RESET_VECTOR.rjust(_FIRMWARE_BYTES, b"\xf4")


def vcpu_argv(qemu: QemuBinary, accelerator: str, *, cpu: str, firmware_fd: int) -> list[str]:
    """Give the argv of a QEMU that runs the firmware of its descriptor `firmware_fd`."""
    return [
        *qemu.argv_prefix,
        *("-nodefaults", "-no-user-config", "-display", "none"),
        *("-machine", "q35,kernel-irqchip=split", "-accel", accelerator, "-cpu", cpu, "-m", "32"),
        *("-bios", f"/proc/self/fd/{firmware_fd}", "-device", "isa-debug-exit"),
    ]


def vcpu_problem(status: int | None, said: str) -> str | None:
    """Tell what went wrong by how QEMU ended (None: it did not in time) and what it said; None if a vCPU ran."""
    if status == _EXIT_STATUS:
        return None
    if status is None:
        return _TOO_SLOW
    lines = said.strip().splitlines()
    return lines[-1] if lines else f"QEMU ended with status {status} without a word"
