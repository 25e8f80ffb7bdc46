"""What a machine is started from: a QEMU build and a guest image, whoever provides them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol


class QemuBinary(Protocol):
    """A QEMU that can be run: `argv_prefix` plus options, with `env` added to the environment."""

    @property
    def argv_prefix(self) -> tuple[str, ...]:
        """The program and whatever it needs to find its own libraries and data."""

    @property
    def env(self) -> Mapping[str, str]:
        """Additional environment variables."""

    @property
    def version(self) -> str:
        """The version, such as `10.0.2`."""

    @property
    def digest(self) -> str:
        """What identifies this very build."""


class BootImage(Protocol):
    """A kernel and an initramfs to boot directly, and the disks beside them."""

    @property
    def name(self) -> str:
        """The image's name, such as `debian-13`."""

    @property
    def digest(self) -> str:
        """What identifies kernel, initramfs and disks."""

    @property
    def kernel(self) -> Path:
        """The bzImage."""

    @property
    def initrd(self) -> Path:
        """The initramfs."""

    @property
    def disks(self) -> Mapping[str, Path]:
        """Raw files that the guest reads as disks, by the names that a machine spec calls them."""
