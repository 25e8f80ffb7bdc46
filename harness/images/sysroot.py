"""Unpacked packages, whose programs run through their own dynamic linker beside whatever the host has installed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from harness.errors import ImageError
from harness.process import WITH_US
from harness.storage import said_by_program

LINKER = "usr/lib64/ld-linux-x86-64.so.2"
LIBRARIES = "usr/lib/x86_64-linux-gnu"
#: Directories of a Debian system that are links into /usr.
MERGED = ("bin", "lib", "lib64", "sbin")

_LINKS_FOLLOWED = 8


class Sysroot:
    """The directory `root` with packages unpacked into it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def unpack(cls, debs: Iterable[Path], root: Path, *, lock: int) -> Sysroot:
        """Unpack `debs` into the new directory `root`. Raises ImageError if one is damaged.

        `lock` is the descriptor of the lock that guards `root`. tar(1) keeps it: it dies with the harness, but a moment
        later, and until then nobody else may think that `root` stands still.
        """
        for name in MERGED:
            (root / "usr" / name).mkdir(parents=True)
            (root / name).symlink_to(f"usr/{name}")
        for deb in debs:
            opening = [*WITH_US, "dpkg-deb", "--fsys-tarfile", str(deb)]
            tar = [*WITH_US, "tar", "--extract", "--keep-directory-symlink", "--no-same-owner", f"--directory={root}"]
            with subprocess.Popen(opening, stdout=subprocess.PIPE) as opened:
                unpacked = subprocess.run(
                    tar,
                    stdin=opened.stdout,
                    capture_output=True,
                    text=True,
                    check=False,
                    pass_fds=(lock,),
                    env={**os.environ, "LC_ALL": "C.UTF-8"},
                )
            unwritten = said_by_program(unpacked.stderr, deb.name, root) if unpacked.returncode else None
            if unwritten is not None:
                raise unwritten
            if opened.returncode or unpacked.returncode:
                raise ImageError(f"{deb.name} cannot be unpacked: {unpacked.stderr.strip() or 'dpkg-deb failed'}")
        return cls(root)

    def command(self, program: str, *, name: str | None = None) -> tuple[str, ...]:
        """The argv that runs `program` (a path inside) under the name `name`, to be followed by its arguments."""
        linker = self.resolve(LINKER)
        argv0 = name or PurePosixPath(program).name
        libraries = str(self.root / LIBRARIES)
        path = str(self.root / self.resolve(program))
        return (str(self.root / linker), "--argv0", argv0, "--library-path", libraries, path)

    def run(
        self,
        program: str,
        *arguments: str,
        name: str | None = None,
        env: Mapping[str, str] | None = None,
        directory: Path | None = None,
        stdin: bytes | None = None,
    ) -> bytes:
        """What `program` (a path inside) prints. It sees of the environment only `env`. Raises ImageError."""
        argv = [*self.command(program, name=name), *arguments]
        clean = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "TZ": "UTC", **(env or {})}
        done = subprocess.run(argv, env=clean, cwd=directory, input=stdin, capture_output=True, check=False)
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip()
            unwritten = said_by_program(said, f"what {name or program} makes", directory or self.root)
            if unwritten is not None:
                raise unwritten
            raise ImageError(f"{name or program} of the packages ended with status {done.returncode}: {said[-2000:]}")
        return done.stdout

    def resolve(self, path: str) -> str:
        """`path` with links followed inside the root, so that absolute ones don't lead to the host's files."""
        for _ in range(_LINKS_FOLLOWED):
            place = self.root / path
            if not place.is_symlink():
                return path
            path = self._target(path)
        raise ImageError(f"{path} is a link that leads to itself")

    def matching(self, pattern: str) -> tuple[str, ...]:
        """The files inside that match the glob `pattern`, sorted. Raises ImageError if there are none."""
        found = sorted(
            str(path.relative_to(self.root)) for path in self.root.glob(pattern) if path.is_symlink() or path.is_file()
        )
        if not found:
            raise ImageError(f"no package has {pattern}", hint="correct `files` of the recipe")
        return tuple(found)

    def link_chain(self, path: str) -> dict[str, str | None]:
        """`path` and what it leads to: each link with its target's text, the file at the end with None."""
        chain: dict[str, str | None] = {}
        while (self.root / path).is_symlink() and path not in chain:
            chain[path] = (self.root / path).readlink().as_posix()
            path = self._target(path)
        if not (self.root / path).is_file():
            raise ImageError(f"{path} is in no package")
        return {**chain, path: None}

    def libraries_of(self, programs: Sequence[str]) -> tuple[str, ...]:
        """The shared libraries that `programs` (paths inside) are linked with, in turn too, as paths inside."""
        found: set[str] = set()
        linker = str(self.root / self.resolve(LINKER))
        for program in programs:
            if not self._is_elf(program):
                continue
            argv = [linker, "--library-path", str(self.root / LIBRARIES), "--list", str(self.root / program)]
            listed = subprocess.run(argv, capture_output=True, text=True, env={}, check=False)
            for line in listed.stdout.splitlines():
                name, _, place = line.strip().partition(" => ")
                if place.startswith("not found"):
                    raise ImageError(f"{program} needs {name}, which is in no package")
                if place:
                    found.add(f"{LIBRARIES}/{PurePosixPath(place.split(' (')[0]).name}")
        return tuple(sorted(found))

    def _target(self, path: str) -> str:
        """Where the link `path` leads, as a path inside."""
        target = PurePosixPath((self.root / path).readlink())
        joined = target.relative_to("/") if target.is_absolute() else PurePosixPath(path).parent / target
        steps: list[str] = []
        for step in joined.parts:
            if step == "..":
                steps.pop()
            else:
                steps.append(step)
        return "/".join(["usr", *steps] if steps[0] in MERGED else steps)

    def _is_elf(self, path: str) -> bool:
        with (self.root / path).open("rb") as file:
            return file.read(4) == b"\x7fELF"
