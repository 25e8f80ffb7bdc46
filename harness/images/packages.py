"""From a recipe and its lock to .deb files on disk, checked by digest."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import ImageError
from harness.images.apt import Archive
from harness.images.lock import Package
from harness.images.recipe import GuestRecipe, Recipe

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Packages:
    """The packages an image is made of: `debs` their files, `replaced` a line for each that is not the locked one."""

    debs: dict[Package, Path]
    replaced: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Order:
    """The name of an image, for messages, and the packages its lock names (None where there is no lock)."""

    name: str
    locked: tuple[Package, ...] | None


def resolve(recipe: Recipe, archive: Archive) -> tuple[Package, ...]:
    """The newest packages that `recipe` takes from the opened `archive`. Raises ImageError if one is not there."""
    names = {*archive.closure(recipe.packages), *recipe.unpack_only}
    if isinstance(recipe, GuestRecipe):
        names.update(archive.kernel_packages(recipe.kernel, recipe.kernel_suite or recipe.suite))
    found = archive.available(sorted(names))
    missing = names - {package.name for package in found}
    if missing:
        raise ImageError(
            f"Debian {', '.join(recipe.suites)} has no package {', '.join(sorted(missing))}", hint="correct the recipe"
        )
    return found


class Stock:
    """The .deb files below the directory `path`, named by digest."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.mkdir(parents=True, exist_ok=True)

    def obtain(self, recipe: Recipe, order: Order, archive: Archive, progress: Progress) -> Packages:
        """The packages of `recipe`, from here or else from `archive`.

        Where the archive no longer has a locked package, or there is no lock, the suite's newest packages are taken and
        said loudly. Raises ImageError.
        """
        if order.locked and all(self._has(package) for package in order.locked):
            return Packages({package: self._file(package) for package in order.locked})
        with archive.opened(progress):
            wanted, replaced = self._choose(recipe, order, archive, progress)
            missing = [package for package in wanted if not self._has(package)]
            if missing:
                progress(f"{order.name}: downloading {len(missing)} packages")
                self._download(missing, archive)
        return Packages({package: self._file(package) for package in wanted}, replaced)

    def _choose(
        self, recipe: Recipe, order: Order, archive: Archive, progress: Progress
    ) -> tuple[tuple[Package, ...], tuple[str, ...]]:
        """The packages to take, and a line for each that is not the locked one."""
        if not order.locked:
            progress(f"{order.name}: NOT LOCKED, taking the newest packages of Debian {archive.label}")
            return resolve(recipe, archive), ("no lock file",)
        offered = set(archive.available([package.name for package in order.locked]))
        gone = [package for package in order.locked if package not in offered and not self._has(package)]
        if not gone:
            return order.locked, ()
        newest = resolve(recipe, archive)
        replaced = _differences(order.locked, newest)
        progress(f"{order.name}: LOCKED PACKAGES ARE GONE from Debian {archive.label}, taking its newest instead:")
        for line in replaced:
            progress(f"    {line}")
        progress(f"    to lock these: harness images repin {order.name}")
        return newest, replaced

    def _download(self, packages: Sequence[Package], archive: Archive) -> None:
        with tempfile.TemporaryDirectory(prefix="download.", dir=self._path) as directory:
            for package, file in archive.download(packages, Path(directory)).items():
                if sha256(file) != package.sha256:
                    raise ImageError(f"{package} has another digest than the archive's signed list says")
                file.replace(self._file(package))

    def _file(self, package: Package) -> Path:
        return self._path / f"{package.sha256}.deb"

    def _has(self, package: Package) -> bool:
        """Whether the file of `package` is here, undamaged; a damaged one is removed."""
        file = self._file(package)
        if not file.exists():
            return False
        if sha256(file) == package.sha256:
            return True
        file.unlink(missing_ok=True)
        return False


def sha256(path: Path) -> str:
    """The SHA-256 of the file at `path` in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _differences(locked: Sequence[Package], newest: Sequence[Package]) -> tuple[str, ...]:
    """A line for each package that is not the same in both."""
    old, new = ({package.name: package for package in side} for side in (locked, newest))
    lines = []
    for name in sorted({*old, *new}):
        before, after = old.get(name), new.get(name)
        if before != after:
            was = before.version if before else "(not there)"
            now = after.version if after else "(not there)"
            lines.append(f"{name} {was} -> {now if was != now else f'{now} with another digest'}")
    return tuple(lines)
