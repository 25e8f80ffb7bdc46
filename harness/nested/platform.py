"""A guest made into a platform: the host of guests of its own, with QEMU and their images on a read-only disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from harness.errors import InfraError
from harness.guest import Guest
from harness.images.qemu_build import inside
from harness.images.store import GuestImage, PlatformDisk
from harness.ssh import Ssh

#: Where the guest has mounted the disk (images/guest/init); `harness.images.platform_disk` says what is on it.
MOUNTED = "/platform"


@dataclass(frozen=True, slots=True)
class FarQemu:
    """The QEMU of the platform, as `harness.machine.parts.QemuBinary`."""

    argv_prefix: tuple[str, ...]
    env: Mapping[str, str]
    version: str
    digest: str


@dataclass(frozen=True, slots=True)
class FarImage:
    """A guest image on the platform, as `harness.machine.parts.BootImage`."""

    name: str
    digest: str
    kernel: Path
    initrd: Path
    disks: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Platform:
    """A guest that runs guests with the QEMU and the images on its disk.

    `virtualization` is what its KVM uses: `SVM` or `VMX`.
    """

    guest: Guest
    qemu: FarQemu
    virtualization: str

    @property
    def ssh(self) -> Ssh:
        """The connection by which its programs are started."""
        return self.guest.ssh

    @classmethod
    def open(cls, guest: Guest, disk: PlatformDisk) -> Platform:
        """See that `guest` has `disk` and a KVM; InfraError if it cannot run guests."""
        look = f"ls -d {MOUNTED}/qemu && ls /dev/kvm && ls -d /sys/module/kvm_amd /sys/module/kvm_intel; true"
        found = guest.run(["sh", "-c", look])
        if b"/dev/kvm" not in found.stdout:
            said = (found.stdout + found.stderr).decode(errors="replace").strip()
            raise InfraError(
                f"this guest can run no guests of its own: {said}",
                hint="its processor needs SVM or VMX; `cpu: max` has SVM under TCG",
            )
        # Both modules may be loaded; only the one that found its processor offers the device.
        svm = guest.run(["grep", "-qw", "svm", "/proc/cpuinfo"]).status == 0
        argv, env = inside(disk.qemu, f"{MOUNTED}/qemu")
        qemu = FarQemu(argv, env, disk.qemu_version, disk.qemu_digest)
        return cls(guest, qemu, "SVM" if svm else "VMX")

    def image(self, image: GuestImage) -> FarImage:
        """Give `image` as it lies on the platform's disk."""
        place = Path(MOUNTED) / "guests" / image.name
        return FarImage(image.name, image.digest, place / "kernel", place / "initrd")
