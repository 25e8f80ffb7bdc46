"""The cache of guest images and of the pinned QEMU, content-addressed and safe between processes.

${VTD_CACHE:-${XDG_CACHE_HOME:-~/.cache}/vtd-harness}/
    images/NAME-KEY/     finished: what was built, and image.json with the digest of every file
    building/NAME.*/     under way, or left by a killed builder; the next builder of NAME removes it
    locks/NAME.lock      held by the one process that builds NAME
    checked/NAME-KEY.json  what the digests were last checked of
    debs/SHA256.deb      packages
    apt/SUITE/           the builder's own apt

KEY is a digest of all that shapes the result: recipe, lock, guest files, agent, and the builder's own source. A
finished image appears by rename and is checked against its digests before it is used; a damaged one is thrown away and
built anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import ImageError
from harness.images import qemu_build
from harness.images.apt import Archive, apt_found
from harness.images.checked import first_wrong
from harness.images.guest_image import GuestSources, build_guest
from harness.images.lock import Package, read_lock, write_lock
from harness.images.packages import Order, Packages, Stock, resolve, sha256
from harness.images.platform_disk import DISK, build_platform
from harness.images.qemu_build import MovableQemu, QemuBuild
from harness.images.recipe import (
    RECIPES,
    GuestRecipe,
    PlatformRecipe,
    QemuRecipe,
    Recipe,
    load_recipe,
    recipe_names,
    recipe_path,
)
from harness.images.sysroot import Sysroot
from harness.lockfile import exclusive
from harness.storage import writing

Progress = Callable[[str], None]

#: The recipe of the pinned QEMU, and that of the disk of guests that run guests of their own.
QEMU, PLATFORM = "qemu", "platform"

_RECORD = "image.json"
_KEPT_BUILDS = 3
_BUILDERS = ("guest_image.py", "kernel.py", "platform_disk.py", "qemu_build.py", "sysroot.py", "tree.py")


@dataclass(frozen=True, slots=True)
class GuestImage:
    """A guest ready to boot: an uncompressed kernel and an initramfs; `digest` is of all its files.

    `disks` are the raw files of the disks that it is given beside them.
    """

    name: str
    kernel: Path
    initrd: Path
    digest: str
    kernel_release: str
    disks: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PlatformDisk:
    """The disk of a guest that runs guests: what is on it is told by `qemu`, the recipe of its QEMU, and `guests`.

    `qemu_version` is what that QEMU says of itself, `qemu_digest` a digest of all its files.
    """

    path: Path
    digest: str
    qemu: QemuRecipe
    qemu_version: str
    qemu_digest: str
    guests: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ImageState:
    """What the cache has of an image; `path` is None if it is not built, `bytes` is its size there."""

    name: str
    kind: str
    suite: str
    packages: int
    path: Path | None
    bytes: int
    replaced: tuple[str, ...]


def cache_directory() -> Path:
    """Where this user's cache is."""
    if named := os.environ.get("VTD_CACHE"):
        return Path(named).absolute()
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root).absolute() if root else Path.home() / ".cache") / "vtd-harness"


class ImageStore:
    """Guest images and QEMU by name, built when they are not there yet.

    Raises InputError for a wrong recipe or lock and ImageError for what cannot be built.
    """

    def __init__(
        self, cache: Path | None = None, *, recipes: Path = RECIPES, sources: GuestSources | None = None
    ) -> None:
        self.cache = cache or cache_directory()
        self._recipes = recipes
        self._sources = sources or GuestSources(recipes / "guest")
        self._checked: dict[Path, dict[str, Any]] = {}

    def names(self) -> tuple[str, ...]:
        """The names of all recipes."""
        return recipe_names(self._recipes)

    def get(self, name: str, progress: Progress) -> GuestImage:
        """The guest image `name`, built first if need be."""
        recipe = load_recipe(recipe_path(name, self._recipes))
        if not isinstance(recipe, GuestRecipe):
            raise ImageError(f"'{name}' is not a guest image but a {recipe.kind} build")
        directory, record = self._ready(name, recipe, progress)
        return GuestImage(name, directory / "kernel", directory / "initrd", record["digest"], record["version"])

    def usual_names(self) -> tuple[str, ...]:
        """The names of the recipes that are built without being named."""
        recipes = {name: load_recipe(recipe_path(name, self._recipes)) for name in self.names()}
        return tuple(name for name, each in recipes.items() if not (isinstance(each, QemuRecipe) and each.on_request))

    def qemu(self, progress: Progress) -> QemuBuild:
        """The QEMU that the environment variable VTD_QEMU names, otherwise the pinned one, built first if need be.

        VTD_QEMU is the name of a recipe of kind `qemu`, or the path of a binary.
        """
        named = os.environ.get("VTD_QEMU") or QEMU
        recipe = load_recipe(recipe_path(named, self._recipes)) if named in self.names() else None
        if not isinstance(recipe, QemuRecipe):
            return qemu_build.named_by_user(Path(named))
        directory, record = self._ready(named, recipe, progress)
        argv, env = qemu_build.command(recipe, directory)
        return QemuBuild(directory / recipe.program, argv, env, record["version"], record["digest"])

    def movable_qemu(self, progress: Progress) -> MovableQemu:
        """The same as something that can be moved to another host; ImageError for a binary that a user named."""
        named = os.environ.get("VTD_QEMU") or QEMU
        recipe = load_recipe(recipe_path(named, self._recipes)) if named in self.names() else None
        if not isinstance(recipe, QemuRecipe):
            raise ImageError(
                f"VTD_QEMU names {named}, a binary of this host, which cannot be run on another",
                hint="name a recipe of kind qemu (qemu-11), or unset VTD_QEMU for the pinned build",
            )
        directory, record = self._ready(named, recipe, progress)
        return MovableQemu(directory, recipe, record["version"], record["digest"])

    def platform(self, progress: Progress) -> PlatformDisk:
        """The disk of a guest that runs guests of its own, and what is on it, built first if need be."""
        recipe = load_recipe(recipe_path(PLATFORM, self._recipes))
        if not isinstance(recipe, PlatformRecipe):
            raise ImageError(f"'{PLATFORM}' is not the disk of a platform but a {recipe.kind} build")
        directory, record = self._ready(PLATFORM, recipe, progress)
        qemu = load_recipe(recipe_path(recipe.qemu, self._recipes))
        if not isinstance(qemu, QemuRecipe):
            raise ImageError(f"the platform's QEMU '{recipe.qemu}' is a {qemu.kind} build")
        _, of_qemu = self._ready(recipe.qemu, qemu, progress)
        return PlatformDisk(
            path=directory / DISK,
            digest=record["digest"],
            qemu=qemu,
            qemu_version=of_qemu["version"],
            qemu_digest=of_qemu["digest"],
            guests=recipe.guests,
        )

    def build(self, name: str, progress: Progress) -> Path:
        """Build the image or QEMU `name` if need be, and return its directory in the cache."""
        return self._ready(name, load_recipe(recipe_path(name, self._recipes)), progress)[0]

    def stages(self, names: Sequence[str]) -> tuple[tuple[str, ...], ...]:
        """Give `names` in stages: those of one can be built at once, none is a part of another."""
        of_parts = tuple(name for name in names if _parts(load_recipe(recipe_path(name, self._recipes))))
        return tuple(name for name in names if name not in of_parts), of_parts

    def intact(self, name: str) -> bool:
        """Whether `name` is built and every file of it has its digest."""
        path = recipe_path(name, self._recipes)
        directory = self._directory(name, load_recipe(path), read_lock(path.with_suffix(".lock")))
        return _intact(directory, lambda _: None) is not None

    def state(self, name: str) -> ImageState:
        """What the cache has of `name`; nothing is built, and digests are not checked."""
        path = recipe_path(name, self._recipes)
        recipe, locked = load_recipe(path), read_lock(path.with_suffix(".lock"))
        directory = self._directory(name, recipe, locked)
        record = _read_record(directory)
        size = sum(file.stat().st_size for file in directory.rglob("*") if file.is_file()) if record else 0
        return ImageState(
            name=name,
            kind=recipe.kind,
            suite=", ".join(recipe.suites),
            packages=len(locked or ()),
            path=directory if record else None,
            bytes=size,
            replaced=tuple(record["replaced"]) if record else (),
        )

    def repin(self, name: str, progress: Progress) -> tuple[Package, ...]:
        """Lock the suite's newest packages for `name`, and return those that were not locked so before."""
        path = recipe_path(name, self._recipes)
        recipe, lock = load_recipe(path), path.with_suffix(".lock")
        _require_apt()
        archive = self._archive(recipe)
        with writing(f"apt's state for {name}", self.cache), archive.opened(progress):
            newest = resolve(recipe, archive)
        before = set(read_lock(lock) or ()) if lock.exists() else set()
        write_lock(lock, newest)
        return tuple(package for package in newest if package not in before)

    def _ready(self, name: str, recipe: Recipe, progress: Progress) -> tuple[Path, dict[str, Any]]:
        """The directory of the finished image and its record."""
        for part in _parts(recipe).values():
            self._ready(part, load_recipe(recipe_path(part, self._recipes)), progress)
        locked = read_lock(recipe_path(name, self._recipes).with_suffix(".lock"))
        directory = self._directory(name, recipe, locked)
        record = self._checked.get(directory) or _intact(directory, progress)
        if record is None:
            with exclusive(self.cache / "locks" / f"{name}.lock", name, progress) as lock:
                record = _intact(directory, lambda _: None)
                if record is None:
                    with writing(f"the build of {name}", self.cache):
                        record = self._build(name, recipe, locked, directory, progress, lock=lock)
        if record["replaced"] and directory not in self._checked:
            progress(f"{name}: not of the locked packages: {'; '.join(record['replaced'])}")
        self._checked[directory] = record
        return directory, record

    def _build(
        self,
        name: str,
        recipe: Recipe,
        locked: tuple[Package, ...] | None,
        directory: Path,
        progress: Progress,
        *,
        lock: int,
    ) -> dict[str, Any]:
        """Build into a private directory and put it in place; the caller holds the lock of `name`: `lock`."""
        _require_apt()
        building = self.cache / "building"
        building.mkdir(parents=True, exist_ok=True)
        for leftover in building.glob(f"{name}.*"):
            progress(f"{name}: removing what a killed builder left")
            _remove(leftover)
        packages = Stock(self.cache / "debs").obtain(recipe, Order(name, locked), self._archive(recipe), progress)
        progress(f"{name}: building")
        private = Path(tempfile.mkdtemp(prefix=f"{name}.", dir=building))
        try:
            result, scratch = private / "result", private / "scratch"
            result.mkdir()
            scratch.mkdir()
            sysroot = Sysroot.unpack(packages.debs.values(), private / "packages", lock=lock)
            version = self._made(recipe, sysroot, scratch, result)
            record = _record(name, version, packages, result)
            (result / _RECORD).write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", encoding="utf-8")
            _remove(directory)
            directory.parent.mkdir(parents=True, exist_ok=True)
            result.rename(directory)
        finally:
            _remove(private)
        self._prune(name, directory)
        progress(f"{name}: ready, {version}")
        return record

    def _made(self, recipe: Recipe, sysroot: Sysroot, scratch: Path, result: Path) -> str:
        """Write what `recipe` makes of the packages in `sysroot` into `result`; returns its version."""
        if isinstance(recipe, GuestRecipe):
            return build_guest(recipe, sysroot, self._sources, scratch, result)
        if isinstance(recipe, QemuRecipe):
            return qemu_build.build_qemu(recipe, sysroot, result)
        parts = {place: self._current(part) for place, part in _parts(recipe).items()}
        return build_platform(recipe, sysroot, parts, scratch, result)

    def _current(self, name: str) -> Path:
        """Where the image `name` is or will be."""
        path = recipe_path(name, self._recipes)
        return self._directory(name, load_recipe(path), read_lock(path.with_suffix(".lock")))

    def _archive(self, recipe: Recipe) -> Archive:
        return Archive(self.cache / "apt" / "+".join(recipe.suites), recipe.suites)

    def _directory(self, name: str, recipe: Recipe, locked: tuple[Package, ...] | None) -> Path:
        """Where the image of this recipe, this lock and these sources is or will be."""
        here = Path(__file__).parent
        files = [here / builder for builder in _BUILDERS]
        if isinstance(recipe, GuestRecipe):
            files += self._sources.paths()
        shape = {
            "recipe": recipe.model_dump(mode="json"),
            "packages": [[package.name, package.version, package.sha256] for package in locked or ()],
            "files": [[file.name, sha256(file), os.access(file, os.X_OK)] for file in files],
            "parts": [self._current(part).name for part in _parts(recipe).values()],
        }
        key = hashlib.sha256(json.dumps(shape, sort_keys=True).encode()).hexdigest()[:16]
        return self.cache / "images" / f"{name}-{key}"

    def _prune(self, name: str, current: Path) -> None:
        """Remove builds of `name` beyond the newest few: each change of the agent makes a new one."""
        length = len(current.name)
        others = [path for path in current.parent.glob(f"{name}-*") if path != current and len(path.name) == length]
        for old in sorted(others, key=lambda path: path.stat().st_mtime, reverse=True)[_KEPT_BUILDS - 1 :]:
            _remove(old)


def _parts(recipe: Recipe) -> dict[str, str]:
    """The images that an image is made of: place in it to name."""
    if not isinstance(recipe, PlatformRecipe):
        return {}
    return {"qemu": recipe.qemu, **{f"guests/{name}": name for name in recipe.guests}}


def _record(name: str, version: str, packages: Packages, result: Path) -> dict[str, Any]:
    files = {
        path.relative_to(result).as_posix(): sha256(path)
        for path in sorted(result.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }
    return {
        "name": name,
        "version": version,
        "digest": hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest(),
        "files": files,
        "packages": [f"{package} {package.sha256}" for package in sorted(packages.debs)],
        "replaced": list(packages.replaced),
    }


def _read_record(directory: Path) -> dict[str, Any] | None:
    try:
        record = json.loads((directory / _RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def _intact(directory: Path, progress: Progress) -> dict[str, Any] | None:
    """The record of the image in `directory` if every file has its digest; None if not, after saying what is wrong."""
    if not directory.exists():
        return None
    record = _read_record(directory)
    if record is None:
        progress(f"{directory.name}: damaged, {_RECORD} cannot be read; building it anew")
        return None
    wrong = first_wrong(directory, record["files"], directory.parents[1] / "checked" / f"{directory.name}.json")
    if wrong is not None:
        progress(f"{directory.name}: damaged, {wrong} is not what was built; building it anew")
        return None
    return record


def _remove(directory: Path) -> None:
    if directory.exists():
        shutil.rmtree(directory)


def _require_apt() -> None:
    if not apt_found():
        raise ImageError(
            "images and QEMU are made of Debian packages; apt-get, apt-cache, apt-config, dpkg-deb or tar is not here",
            hint="run on Debian, in a container of it if need be; for QEMU alone, VTD_QEMU names another",
        )
