from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from harness.errors import ImageError
from harness.images.apt import Archive
from harness.images.recipe import RECIPES


@pytest.fixture(scope="session")
def stocked_cache(image_store, tmp_path_factory) -> Path:
    """A cache without images whose packages are all there, so that building needs no network."""
    image_store.get("debian-13", print)
    image_store.build("qemu", print)
    cache = tmp_path_factory.mktemp("cache")
    (cache / "debs").symlink_to(image_store.cache / "debs")
    return cache


@pytest.fixture
def recipes(tmp_path) -> Path:
    """A copy of the shipped recipes, to change."""
    return Path(shutil.copytree(RECIPES, tmp_path / "images"))


@pytest.fixture(scope="session")
def online(image_store):
    """Skips where the archive cannot be reached."""
    try:
        with Archive(image_store.cache / "apt" / "trixie", ["trixie"]).opened(print):
            pass
    except ImageError as error:
        pytest.skip(f"the Debian archive cannot be reached: {error.message}")


@pytest.fixture
def said() -> list[str]:
    """What progress said; pass its `append`."""
    return []
