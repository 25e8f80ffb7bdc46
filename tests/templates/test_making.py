"""What tells one template from another, and a sound one from a damaged one."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.machine.spec import IommuSpec
from harness.templates.making import digest
from tests.templates.example import Image, Qemu, ingredients

#: What another machine may differ by.
CHANGES = {
    "memory": {"memory_mib": 1024},
    "vcpus": {"vcpus": 2},
    "cpu": {"cpu": "qemu64"},
    "kernel argument": {"kernel_args": ("intel_iommu=off",)},
    "kernel arguments": {"kernel_args": ("intel_iommu=on", "iommu.strict=1")},
    "vIOMMU option": {"iommus": (IommuSpec({"caching_mode": True}),)},
    "vIOMMU option's value": {"iommus": (IommuSpec({"caching_mode": False}),)},
    "no vIOMMU": {"iommus": ()},
    "irqchip": {"irqchip": "off"},
    "ports": {"root_ports": 5},
    "bridges": {"pci_bridges": 1},
    "accelerator": {"accelerator": "kvm"},
    "image": {"image": Image(digest="sha256:2")},
    "QEMU build": {"qemu": Qemu(digest="sha256:3")},
    "QEMU version": {"qemu": Qemu(version="11.1.3")},
}


@pytest.mark.parametrize("name", CHANGES)
def test_another_machine_has_another_key(name) -> None:
    change = dict(CHANGES[name])
    image = change.pop("image", None)
    other = ingredients(image=image, **change)
    assert other.key() != ingredients().key()
    assert other.key() == ingredients(image=image, **change).key()


def test_no_two_of_them_have_the_same_key() -> None:
    keys = {ingredients(**change).key() for name, change in CHANGES.items() if name != "image"}
    assert len(keys) == len(CHANGES) - 1


def test_a_disk_counts_by_its_name_and_the_digest_and_not_by_where_it_lies() -> None:
    def key(path: str, **image: str) -> str:
        return ingredients(image=Image(disks={"platform": Path(path)}, **image), disks=("platform",)).key()

    assert key("/one/cache/disk") == key("/another/disk")
    assert key("/one/cache/disk", digest="sha256:2") != key("/one/cache/disk")
    assert key("/one/cache/disk") != ingredients().key()


def test_wires_do_not_matter_since_their_nics_are_plugged_in_later() -> None:
    assert ingredients(wires=("lan", "wan")).key() == ingredients().key()


@pytest.mark.parametrize(
    ("machine", "name"),
    [
        ({}, "debian-13 (intel_iommu=on)"),
        ({"kernel_args": ()}, "debian-13"),
        ({"iommus": ()}, "debian-13 (no vIOMMU, intel_iommu=on)"),
        (
            {"iommus": (IommuSpec({"intremap": "on", "aw_bits": 39}),)},
            "debian-13 (intremap=on, aw_bits=39, intel_iommu=on)",
        ),
    ],
)
def test_it_is_called_by_what_a_reader_tells_it_by(machine, name) -> None:
    assert ingredients(**machine).name == name


SIZE = 1 << 20
BLOCKS = {0x1_0000: b"a" * 4096, 0x1_3000: b"b" * 4096, 0x8_0000: b"c" * 0x1_0000, SIZE - 100: b"d" * 100}


@pytest.fixture
def written(tmp_path):
    """Write a file of holes and blocks; `whole` without any hole."""

    def write(blocks, *, size=SIZE, whole=False):
        path = tmp_path / f"file{len(list(tmp_path.iterdir()))}"
        with path.open("wb") as file:
            if whole:
                file.write(bytes(size))
            file.truncate(size)
            for offset, data in blocks.items():
                file.seek(offset)
                file.write(data)
        return path

    return write


@pytest.mark.parametrize("blocks", [{}, BLOCKS], ids=["empty", "blocks"])
def test_a_hole_is_as_good_as_zeros(written, blocks) -> None:
    holes, zeros = written(blocks), written(blocks, whole=True)
    assert holes.stat().st_blocks < zeros.stat().st_blocks
    assert digest(holes) == digest(zeros)


FEWER = {offset: data for offset, data in BLOCKS.items() if offset != 0x8_0000}
OTHERS = {
    "a block less": FEWER,
    "a block elsewhere": {**FEWER, 0x9_0000: b"c" * 0x1_0000},
    "two blocks exchanged": {**BLOCKS, 0x1_0000: b"b" * 4096, 0x1_3000: b"a" * 4096},
    "a block twice": {**BLOCKS, 0xA_0000: b"c" * 0x1_0000},
    "another byte at the end": {**BLOCKS, SIZE - 100: b"d" * 99 + b"e"},
    "another byte in a hole": {**BLOCKS, 0x5_4321: b"\1"},
}


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("whole", [False, True], ids=["holes", "zeros"])
def test_other_bytes_or_places_have_another_digest(written, name, whole) -> None:
    assert digest(written(OTHERS[name], whole=whole)) != digest(written(BLOCKS))


def test_a_longer_hole_has_another_digest(written) -> None:
    assert digest(written({}, size=SIZE + 1)) != digest(written({}))
