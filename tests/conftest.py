"""Real parts for tests: the pinned QEMU, guest images, and a machine that stands before its first instruction."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from harness.evidence import VariantDirectory
from harness.images.qemu_build import QemuBuild
from harness.images.store import GuestImage, ImageStore
from harness.machine.launch import Machine
from harness.machine.properties import QemuFacts, facts
from harness.machine.spec import IommuSpec, MachineSpec

# Machines are shared: how long an example takes says nothing of what it tests.
settings.register_profile("shared-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared-machine")


@dataclass(frozen=True)
class EmptyImage:
    """A kernel that QEMU loads, for machines that stay halted; one that runs it goes round in a circle."""

    name: str
    digest: str
    kernel: Path
    initrd: Path
    disks: Mapping[str, Path] = field(default_factory=dict)


@pytest.fixture(scope="session")
def image_store() -> ImageStore:
    return ImageStore()


@pytest.fixture(scope="session")
def qemu_build(image_store) -> QemuBuild:
    return image_store.qemu(print)


@pytest.fixture(scope="session")
def qemu_facts(qemu_build, image_store) -> QemuFacts:
    return facts(qemu_build, image_store.cache)


@pytest.fixture(scope="session", params=["debian-12", "debian-13"])
def guest_image(request, image_store) -> GuestImage:
    return image_store.get(request.param, print)


@pytest.fixture(scope="session")
def empty_image(tmp_path_factory) -> EmptyImage:
    """The smallest file that QEMU takes for a bzImage (header fields: Documentation/arch/x86/boot.rst)."""
    directory = tmp_path_factory.mktemp("empty-image")
    kernel = bytearray(4096)
    kernel[0x1F1] = 1  # setup_sects
    kernel[0x1FE:0x200] = b"\x55\xaa"
    kernel[0x200:0x202] = b"\xeb\xfe"  # jmp to itself
    kernel[0x202:0x208] = b"HdrS" + struct.pack("<H", 0x0204)
    kernel[0x211] = 1  # loadflags: LOADED_HIGH
    kernel[0x22C:0x230] = struct.pack("<I", 0x37FF_FFFF)  # initrd_addr_max
    (directory / "kernel").write_bytes(kernel)
    (directory / "initrd").write_bytes(b"\0" * 512)
    return EmptyImage("empty", "empty", directory / "kernel", directory / "initrd")


StartMachine = Callable[..., Machine]


@pytest.fixture
def start_machine(qemu_build, qemu_facts, tmp_path) -> Iterator[StartMachine]:
    """Start a machine from a spec and an image in a directory of its own; the test's with block stops it."""
    with ExitStack() as stack:

        def start(spec: MachineSpec, image, *, name: str = "variant", **how: Any) -> Machine:
            directory = VariantDirectory(tmp_path / name)
            directory.path.mkdir()
            journal = stack.enter_context(directory.journal())
            return Machine.start(
                spec, qemu=qemu_build, facts=qemu_facts, image=image, directory=directory, journal=journal, **how
            )

        yield start


@pytest.fixture
def halted_machine(start_machine, empty_image) -> Iterator[Machine]:
    spec = MachineSpec(
        image="empty",
        memory_mib=64,
        iommus=(IommuSpec({"intremap": True, "caching_mode": True}),),
        wires=("w0",),
        root_ports=2,
    )
    with start_machine(spec, empty_image) as machine:
        yield machine


@pytest.fixture
def disk(tmp_path) -> Iterator[Path]:
    """A file system of 200 KB."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "none", place], capture_output=True, check=False)
    if made.returncode:
        pytest.skip(f"no file system can be mounted here: {made.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", "-l", place], check=True)
