"""VFIO's system calls: containers, groups, devices. Numbers and structures from include/uapi/linux/vfio.h."""

from __future__ import annotations

import fcntl
import os
import struct
from typing import NamedTuple

from protocol import Refused, attempting

TYPE1 = 1
TYPE1V2 = 3

_API_VERSION = 0
_GROUP_VIABLE = 1
_CONFIG_REGION = 7


def _request(offset: int) -> int:
    """`_IO(';', 100 + offset)`: all of VFIO's requests are made without direction or size."""
    return ord(";") << 8 | 100 + offset


_GET_API_VERSION = _request(0)
_CHECK_EXTENSION = _request(1)
_SET_IOMMU = _request(2)
_GROUP_GET_STATUS = _request(3)
_GROUP_SET_CONTAINER = _request(4)
_GROUP_UNSET_CONTAINER = _request(5)
_GROUP_GET_DEVICE_FD = _request(6)
_DEVICE_GET_REGION_INFO = _request(8)
_DEVICE_SET_IRQS = _request(10)
_IOMMU_MAP_DMA = _request(13)
_IOMMU_UNMAP_DMA = _request(14)

_MAP = struct.Struct("=IIQQQ")
_UNMAP = struct.Struct("=IIQQ")
_REGION = struct.Struct("=IIIIQQ")
_STATUS = struct.Struct("=II")
_IRQ_SET = struct.Struct("=IIIIIi")

#: VFIO_IRQ_SET_DATA_EVENTFD and VFIO_IRQ_SET_ACTION_TRIGGER.
_SIGNAL_EVENTFD = 1 << 2 | 1 << 5
_MSI_INDEX = 1

#: What the *device* may do with a mapping (VFIO_DMA_MAP_FLAG_READ, _WRITE).
ACCESS_FLAGS = {"r": 1, "w": 2, "rw": 3}


class Region(NamedTuple):
    """Where in the device's file a region starts, and its bytes."""

    offset: int
    size: int


class Container:
    """One set of IOVA mappings. It has an IOMMU from the first group on, and loses its mappings with the last one."""

    def __init__(self) -> None:
        with attempting("open the VFIO container"):
            self._fd = os.open("/dev/vfio/vfio", os.O_RDWR | os.O_CLOEXEC)
        version = fcntl.ioctl(self._fd, _GET_API_VERSION)
        if version != _API_VERSION:
            os.close(self._fd)
            raise Refused(f"VFIO's API version is {version}, not {_API_VERSION}")

    def add(self, group: Group) -> None:
        """Put `group` under this container's mappings."""
        with attempting(f"put IOMMU group {group.number} into the container"):
            fcntl.ioctl(group.fd, _GROUP_SET_CONTAINER, struct.pack("=i", self._fd))

    def remove(self, group: Group) -> None:
        """Take `group` out again; its devices must be closed."""
        with attempting(f"take IOMMU group {group.number} out of the container"):
            fcntl.ioctl(group.fd, _GROUP_UNSET_CONTAINER)

    def choose_iommu(self) -> int:
        """Give the container its IOMMU, type1 version 2 where there is one; answers the type. Needs a group."""
        kind = TYPE1V2 if fcntl.ioctl(self._fd, _CHECK_EXTENSION, TYPE1V2) else TYPE1
        with attempting(f"set the container's IOMMU to type {kind}"):
            fcntl.ioctl(self._fd, _SET_IOMMU, kind)
        return kind

    def map(self, *, address: int, iova: int, size: int, access: str) -> None:
        """Let devices reach `size` bytes of this process at `address` under `iova`."""
        if access not in ACCESS_FLAGS:
            raise Refused(f"access must be one of {', '.join(ACCESS_FLAGS)}, not {access!r}")
        with attempting(f"map {size:#x} bytes at IOVA {iova:#x} {access}"):
            fcntl.ioctl(self._fd, _IOMMU_MAP_DMA, _MAP.pack(_MAP.size, ACCESS_FLAGS[access], address, iova, size))

    def unmap(self, *, iova: int, size: int) -> int:
        """Take away every mapping inside the range; answers the bytes unmapped. Type 1v2 never splits a mapping."""
        request = bytearray(_UNMAP.pack(_UNMAP.size, 0, iova, size))
        with attempting(f"unmap {size:#x} bytes at IOVA {iova:#x}"):
            fcntl.ioctl(self._fd, _IOMMU_UNMAP_DMA, request)
        return int(_UNMAP.unpack(request)[3])

    def close(self) -> None:
        """Let go of the container."""
        os.close(self._fd)


class Group:
    """An IOMMU group's file; only one process, and one container, has it at a time."""

    def __init__(self, number: str) -> None:
        self.number = number
        with attempting(f"open IOMMU group {number}"):
            self.fd = os.open(f"/dev/vfio/{number}", os.O_RDWR | os.O_CLOEXEC)

    @property
    def viable(self) -> bool:
        """Whether no member belongs to a driver that does DMA of its own."""
        status = bytearray(_STATUS.pack(_STATUS.size, 0))
        with attempting(f"ask for the status of IOMMU group {self.number}"):
            fcntl.ioctl(self.fd, _GROUP_GET_STATUS, status)
        return bool(_STATUS.unpack(status)[1] & _GROUP_VIABLE)

    def open_device(self, bdf: str) -> int:
        """A file descriptor of member `bdf`; opening resets the function where it can be reset."""
        with attempting(f"open {bdf} through IOMMU group {self.number}"):
            # A bytearray: for an immutable argument Python answers the buffer instead of the new descriptor.
            return int(fcntl.ioctl(self.fd, _GROUP_GET_DEVICE_FD, bytearray(bdf.encode() + b"\0")))

    def close(self) -> None:
        """Let go of the group."""
        os.close(self.fd)


def probe(number: str) -> tuple[bool, int]:
    """Whether VFIO calls an IOMMU group viable, and the errno of putting it into a container, 0 if that is granted."""
    group = Group(number)
    container = Container()
    try:
        viable = group.viable
        try:
            container.add(group)
        except Refused as refusal:
            return viable, refusal.errno
        container.remove(group)
        return viable, 0
    finally:
        container.close()
        group.close()


def region(device_fd: int, index: int) -> Region:
    """Region `index` of an open device: 0 to 5 are its BARs."""
    info = bytearray(_REGION.pack(_REGION.size, 0, index, 0, 0, 0))
    with attempting(f"ask for region {index}"):
        fcntl.ioctl(device_fd, _DEVICE_GET_REGION_INFO, info)
    *_, size, offset = _REGION.unpack(info)
    return Region(offset, size)


def signal_msi(device_fd: int, eventfd: int) -> None:
    """Have the kernel give the device its first MSI vector, and count each of its interrupts in `eventfd`."""
    request = _IRQ_SET.pack(_IRQ_SET.size, _SIGNAL_EVENTFD, _MSI_INDEX, 0, 1, eventfd)
    with attempting("enable message-signalled interrupts"):
        fcntl.ioctl(device_fd, _DEVICE_SET_IRQS, request)


def config_region(device_fd: int) -> Region:
    """Configuration space of an open device."""
    return region(device_fd, _CONFIG_REGION)
