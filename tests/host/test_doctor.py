from __future__ import annotations

import pytest

from harness.host.doctor import DEVICE_TYPES, Need, device_types, examine, render
from harness.images.store import ImageStore


@pytest.mark.qemu
def test_all_is_well_where_everything_is_built(image_store, qemu_build, tmp_path):
    for name in image_store.usual_names():
        image_store.build(name, print)
    needs = {need.name: need for need in examine(image_store, tmp_path)}
    assert not [need for need in needs.values() if not need.ok]
    assert qemu_build.version in needs["qemu"].found
    assert needs["image debian-12"].found.startswith("kernel 6.1.")
    assert needs["image debian-13"].found.startswith("kernel 6.12.")
    assert needs["accelerator"].found.startswith(("kvm: a vCPU ran", "tcg"))
    assert {f"device {device}" for device in DEVICE_TYPES} <= needs.keys()


@pytest.mark.qemu
def test_the_device_types_are_those_qemu_offers(qemu_build):
    offered = device_types(qemu_build)
    assert set(DEVICE_TYPES) <= offered
    assert "iommu-testdev-of-my-dreams" not in offered


def test_what_is_missing_is_named_with_the_command_that_mends_it(tmp_path, monkeypatch):
    monkeypatch.delenv("VTD_QEMU", raising=False)
    missing = {need.name: need for need in examine(ImageStore(tmp_path / "cache"), tmp_path) if not need.ok}
    assert set(missing) == {"qemu", "image debian-12", "image debian-13", "image debian-13-backports"}
    assert missing["qemu"].remedy == "harness images build qemu"
    assert missing["image debian-12"].remedy == "harness images build debian-12"
    assert not (tmp_path / "cache").exists()


def test_a_qemu_chosen_by_its_recipe_is_not_built_by_looking(tmp_path, monkeypatch):
    monkeypatch.setenv("VTD_QEMU", "qemu-11")
    need = next(need for need in examine(ImageStore(tmp_path / "cache"), tmp_path) if need.name == "qemu")
    assert not need.ok
    assert "qemu-11" in need.found
    assert need.remedy == "harness images build qemu-11"
    assert not (tmp_path / "cache").exists()


def test_a_qemu_of_the_users_that_does_not_run_is_a_need(tmp_path, monkeypatch):
    monkeypatch.setenv("VTD_QEMU", str(tmp_path / "qemu"))
    needs = {need.name: need for need in examine(ImageStore(tmp_path / "cache"), tmp_path)}
    assert not needs["qemu"].ok
    assert "VTD_QEMU" in needs["qemu"].found
    assert "unset VTD_QEMU" in needs["qemu"].remedy


def test_a_table_has_a_line_per_need_and_the_remedy_below():
    needs = [
        Need("python", ok=True, found="3.13.5", remedy="unused"),
        Need("qemu", ok=False, found="none", remedy="build it"),
    ]
    assert render(needs).splitlines() == [
        "ok       python  3.13.5",
        "MISSING  qemu    none",
        "                 -> build it",
        "1 of 2 needs are not met",
    ]
    assert render(needs[:1]).splitlines()[-1] == "everything is there"
