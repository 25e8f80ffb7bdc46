"""A guest made into a platform: the host of guests of its own, with QEMU and their images on a read-only disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from harness.errors import InfraError
from harness.guest import Guest
from harness.images.qemu_build import inside
from harness.images.recipe import PlatformRecipe
from harness.images.store import GuestImage
from harness.machine.spec import PLATFORM_DISK

#: Where the disk is mounted in the platform guest; `images/platform.yaml` has what is on it.
MOUNTED = PurePosixPath("/platform")

#: What the platform needs of its kernel: the disk, guests, the devices handed to them, and what joins their NICs.
_MODULES = ("virtio_blk", "squashfs", "kvm_amd", "kvm_intel", "vfio_pci", "tun", "bridge")

_OPEN = f"""
modprobe -a {" ".join(_MODULES[:2])}
for module in {" ".join(_MODULES[2:])}; do modprobe -q $module; done
for disk in /sys/block/vd*; do
    [ "$(cat $disk/serial)" != {PLATFORM_DISK} ] || found=/dev/${{disk##*/}}
done
mkdir -p {MOUNTED} && mount -t squashfs -o ro "$found" {MOUNTED} && [ -w /dev/kvm ]
"""


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
    """A guest that runs guests: `qemu` and images as they lie there, `virtualization` as its kernel tells it."""

    guest: Guest
    qemu: FarQemu
    virtualization: str

    @classmethod
    def open(cls, guest: Guest, recipe: PlatformRecipe, *, version: str, digest: str) -> Platform:
        """Mount the disk and load what running guests takes; InfraError if this guest cannot be a platform.

        `recipe` says what is on the disk, `version` and `digest` are those of its QEMU.
        """
        done = guest.run(["sh", "-c", _OPEN], timeout_s=60.0)
        if done.status:
            said = (done.stdout + done.stderr).decode(errors="replace").strip()
            raise InfraError(
                f"this guest can run no guests of its own: {said or 'it has no /dev/kvm'}",
                hint="its processor needs SVM or VMX; `cpu: max` has SVM under TCG",
            )
        kind = guest.run(["sh", "-c", "ls -d /sys/module/kvm_amd /sys/module/kvm_intel 2>/dev/null"])
        virtualization = "VMX" if b"kvm_intel" in kind.stdout else "SVM"
        argv, env = inside(recipe, str(MOUNTED / "qemu"))
        return cls(guest, FarQemu(argv, env, version, digest), virtualization)

    def image(self, image: GuestImage) -> FarImage:
        """Give `image` as it lies on the platform's disk."""
        place = Path(MOUNTED / "guests" / image.name)
        return FarImage(image.name, image.digest, place / "kernel", place / "initrd")
