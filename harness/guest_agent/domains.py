"""Named protection domains: each is one VFIO container with the devices attached to it and what is mapped for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from binding import VFIO, bind, modprobe
from buffers import BufferTable
from pci import driver_of, group_members, group_of, is_bridge
from protocol import Operation, Refused
from vfio import Container, Group, probe


class Domain:
    """One container, its groups by number, its devices by address, its mappings by IOVA."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.container = Container()
        self.groups: dict[str, Group] = {}
        self.devices: dict[str, str] = {}
        self.mappings: dict[int, dict[str, Any]] = {}
        self.iommu_type = 0

    def attach(self, bdf: str, number: str) -> None:
        """Put the group of `bdf` under this domain, unless another of its devices has brought it already."""
        if number not in self.groups:
            group = Group(number)
            try:
                self._join(group)
            except Refused:
                group.close()
                raise
            self.groups[number] = group
        self.devices[bdf] = number

    def _join(self, group: Group) -> None:
        try:
            if not group.viable:
                raise Refused(f"IOMMU group {group.number} is not viable")
            self.container.add(group)
        except Refused as refusal:
            others = _foreign_members(group.number)
            names = f"; not bound to {VFIO}: {', '.join(others)}" if others else ""
            raise Refused(f"{refusal.reason}{names}", refusal.errno) from refusal
        if not self.groups:
            try:
                self.iommu_type = self.container.choose_iommu()
            except Refused:
                self.container.remove(group)
                raise

    def detach(self, bdf: str) -> None:
        """Take `bdf` out; its group leaves with the last of its devices."""
        number = self.devices.pop(bdf)
        if number not in self.devices.values():
            group = self.groups.pop(number)
            self.container.remove(group)
            group.close()

    def describe(self) -> dict[str, Any]:
        """What `domain_info` tells of it."""
        return {
            "iommu_type": self.iommu_type,
            "devices": sorted(self.devices),
            "groups": sorted(self.groups, key=int),
            "mappings": [self.mappings[iova] for iova in sorted(self.mappings)],
        }


def _foreign_members(number: str) -> list[str]:
    """Members of a group that keep it from being viable, as `address (driver)`.

    A bridge may keep its driver, pcieport: it makes no DMA of its own (driver_managed_dma in its pci_driver).
    """
    drivers = {bdf: driver_of(bdf) for bdf in group_members(number) if not is_bridge(bdf)}
    return [f"{bdf} ({driver})" for bdf, driver in drivers.items() if driver not in (VFIO, None)]


class DomainTable:
    """Operations `domain_*`. A domain exists from its first attached device until its last one is detached."""

    def __init__(self, buffers: BufferTable) -> None:
        self._buffers = buffers
        self._domains: dict[str, Domain] = {}
        #: Names the open device at an address, so that nothing is detached under it.
        self.in_use: Callable[[str], str | None] = lambda _bdf: None

    def operations(self) -> dict[str, Operation]:
        """Operations by name."""
        return {
            "domain_attach": self.domain_attach,
            "domain_detach": self.domain_detach,
            "domain_map": self.domain_map,
            "domain_unmap": self.domain_unmap,
            "domain_info": self.domain_info,
            "group_status": self.group_status,
        }

    def of_device(self, bdf: str) -> Domain | None:
        """The domain that `bdf` is attached to."""
        return next((domain for domain in self._domains.values() if bdf in domain.devices), None)

    def open_device(self, bdf: str) -> int:
        """A VFIO file descriptor of `bdf`, which must be attached to a domain."""
        domain = self.of_device(bdf)
        if domain is None:
            raise Refused(f"{bdf} is attached to no domain")
        return domain.groups[domain.devices[bdf]].open_device(bdf)

    def domain_attach(self, *, domain: str, bdf: str) -> dict[str, Any]:
        """Bind `bdf` to vfio-pci and put it, with its whole IOMMU group, under `domain`, made if it is new."""
        held = self.of_device(bdf)
        if held is not None:
            raise Refused(f"{bdf} is attached to domain {held.name}")
        number = group_of(bdf)
        if number is None:
            raise Refused(f"{bdf} is in no IOMMU group")
        for other in self._domains.values():
            if number in other.groups and other.name != domain:
                raise Refused(f"IOMMU group {number} of {bdf} belongs to domain {other.name}")
        modprobe("vfio_iommu_type1")
        bind(bdf, VFIO)
        target = self._domains.get(domain) or Domain(domain)
        try:
            target.attach(bdf, number)
        except Refused:
            if not target.devices:
                target.container.close()
            raise
        self._domains[domain] = target
        return {"group": number, "iommu_type": target.iommu_type}

    def domain_detach(self, *, bdf: str, domain: str | None = None) -> dict[str, Any]:
        """Take `bdf` out of its domain; `domain`, where given, must be the one. It stays bound to vfio-pci.

        With the last device the domain and its mappings go: VFIO keeps none without a group.
        """
        held = self.of_device(bdf)
        if held is None or domain not in (None, held.name):
            raise Refused(f"{bdf} is not attached to domain {domain}" if domain else f"{bdf} is attached to no domain")
        user = self.in_use(bdf)
        if user is not None:
            raise Refused(f"{bdf} is open as device {user}; close it first")
        held.detach(bdf)
        if not held.devices:
            held.container.close()
            del self._domains[held.name]
        return {"domain": held.name, "left": sorted(held.devices)}

    def domain_map(
        self, *, domain: str, buffer: str, iova: int, offset: int = 0, size: int | None = None, access: str = "rw"
    ) -> dict[str, Any]:
        """Map a range of a buffer (default: from `offset` to its end) at `iova`; `access` is what devices may do."""
        target, source = self._find(domain), self._buffers.find(buffer)
        length = source.size - offset if size is None else size
        if offset < 0 or length <= 0 or offset + length > source.size or iova < 0:
            raise Refused(f"buffer {buffer} has {source.size} bytes; asked to map {length} at {offset}, IOVA {iova:#x}")
        target.container.map(address=source.address + offset, iova=iova, size=length, access=access)
        mapping = {"iova": iova, "size": length, "buffer": buffer, "offset": offset, "access": access}
        target.mappings[iova] = mapping
        return mapping

    def domain_unmap(self, *, domain: str, iova: int, size: int) -> dict[str, Any]:
        """Unmap a range; `unmapped` is the number of bytes that were mapped in it, 0 if there were none."""
        target = self._find(domain)
        unmapped = target.container.unmap(iova=iova, size=size)
        for start in [at for at, kept in target.mappings.items() if iova <= at and at + kept["size"] <= iova + size]:
            del target.mappings[start]
        return {"unmapped": unmapped}

    def domain_info(self) -> dict[str, Any]:
        """Every domain with its devices, groups and mappings."""
        return {"domains": {name: domain.describe() for name, domain in self._domains.items()}}

    def group_status(self, *, bdf: str) -> dict[str, Any]:
        """What VFIO says of the group of `bdf`, and who is in it.

        `viable` is VFIO's flag, `errno` what its refusal to give the group a container is, 0 if it gives one. A group
        that is in a domain has its container.
        """
        number = group_of(bdf)
        if number is None:
            raise Refused(f"{bdf} is in no IOMMU group")
        members = [
            {"bdf": member, "driver": driver_of(member), "bridge": is_bridge(member)}
            for member in group_members(number)
        ]
        for domain in self._domains.values():
            if number in domain.groups:
                held = domain.groups[number].viable
                return {"group": number, "members": members, "viable": held, "errno": 0, "domain": domain.name}
        viable, errno = probe(number)
        return {"group": number, "members": members, "viable": viable, "errno": errno, "domain": None}

    def close_all(self) -> None:
        """Let go of every group and container; the kernel unmaps what was mapped. Devices must be closed."""
        for domain in self._domains.values():
            for group in domain.groups.values():
                group.close()
            domain.container.close()
        self._domains.clear()

    def _find(self, name: str) -> Domain:
        if name not in self._domains:
            raise Refused(f"no domain {name!r}; known: {', '.join(self._domains) or 'none'}")
        return self._domains[name]
