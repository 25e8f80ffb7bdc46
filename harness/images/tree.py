"""The contents of an image before they are packed: paths with their kind, mode and source."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from harness.images.sysroot import Sysroot

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./+-[]:,@%")


@dataclass(frozen=True, slots=True)
class _File:
    source: Path
    mode: int


@dataclass(slots=True)
class Tree:
    """Paths (without leading slash) to files, symbolic links and directories. Parents are made as needed."""

    _files: dict[str, _File] = field(default_factory=dict)
    _links: dict[str, str] = field(default_factory=dict)
    _directories: dict[str, int] = field(default_factory=dict)

    def __contains__(self, path: str) -> bool:
        return path in self._files or path in self._links or path in self._directories

    @property
    def files(self) -> tuple[str, ...]:
        """All regular files, sorted."""
        return tuple(sorted(self._files))

    def add_file(self, path: str, source: Path) -> None:
        """The contents of `source`, executable for all if it is for its owner, otherwise readable for all."""
        executable = source.stat().st_mode & 0o100
        self._files[path] = _File(source, 0o755 if executable else 0o644)

    def add_link(self, path: str, target: str) -> None:
        """A symbolic link."""
        self._links[path] = target

    def add_directory(self, path: str, mode: int = 0o755) -> None:
        """A directory that is empty, or has another mode than 0755."""
        self._directories[path] = mode

    def add_directory_of(self, directory: Path) -> None:
        """All files below `directory`, at the same places."""
        for source in sorted(path for path in directory.rglob("*") if path.is_file()):
            self.add_file(source.relative_to(directory).as_posix(), source)

    def add_from(self, sysroot: Sysroot, path: str) -> None:
        """A file of the packages, with the links that lead to it."""
        for step, target in sysroot.link_chain(path).items():
            if target is None:
                self.add_file(step, sysroot.root / step)
            else:
                self.add_link(step, target)

    def add_libraries_from(self, sysroot: Sysroot) -> None:
        """What the programs and libraries among the files are linked with, and the dynamic linker."""
        inside = [path for path in self.files if (sysroot.root / path).is_file()]
        for library in sysroot.libraries_of(inside):
            self.add_from(sysroot, library)

    def listing(self) -> str:
        """The tree as an mtree(5) specification: owner root, times and link counts fixed, sorted by path."""
        lines = ["#mtree", "/set uid=0 gid=0 time=0.0 nlink=1"]
        directories = self._all_directories()
        for path in sorted({*self._files, *self._links, *directories}):
            if path in self._files:
                file = self._files[path]
                what = f"type=file mode={file.mode:04o} contents={_escaped(str(file.source.absolute()))}"
            elif path in self._links:
                what = f"type=link mode=0777 link={_escaped(self._links[path])}"
            else:
                what = f"type=dir mode={directories[path]:04o}"
            lines.append(f"./{_escaped(path)} {what}")
        return "\n".join(lines) + "\n"

    def copy_to(self, root: Path) -> None:
        """Make the tree as a directory."""
        for path, mode in sorted(self._all_directories().items()):
            (root / path).mkdir(mode=mode, parents=True, exist_ok=True)
        for path, file in self._files.items():
            shutil.copyfile(file.source, root / path)
            (root / path).chmod(file.mode)
        for path, target in self._links.items():
            (root / path).symlink_to(target)

    def _all_directories(self) -> dict[str, int]:
        implied = {
            parent.as_posix(): 0o755
            for path in (*self._files, *self._links, *self._directories)
            for parent in PurePosixPath(path).parents
            if parent.name
        }
        return {**implied, **self._directories}


def _escaped(text: str) -> str:
    """`text` with every byte that could mean something to mtree's syntax as an octal escape."""
    return "".join(
        chr(byte) if chr(byte) in _PLAIN else f"\\{byte:03o}" for byte in text.encode("utf-8", errors="surrogateescape")
    )
