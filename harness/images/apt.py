"""An apt of the builder's own: sources, lists and status lie below the cache, the host's are neither read nor written.

What is taken from the host is the mirror that its apt uses, the keyring of Debian's archive, and its apt's settings for
reaching the network (proxies, certificates). Signatures are checked as always.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from harness.errors import ImageError
from harness.images.lock import Package
from harness.lockfile import exclusive
from harness.process import WITH_US
from harness.storage import said_by_program

#: The environment variable that names a mirror of Debian's archive, where it is not the host's own.
MIRROR = "VTD_MIRROR"

#: Debian's archive keys; the second name is the newer one, and each release has at least one of them.
KEYRINGS = (
    Path("/usr/share/keyrings/debian-archive-keyring.gpg"),
    Path("/usr/share/keyrings/debian-archive-keyring.pgp"),
)

_NETWORK_SETTING = re.compile(r'Acquire::(http|https)::[^ ]+ "[^"\n]*";')
_REMEDY = "apt-get install --only-upgrade debian-archive-keyring, or name a reachable mirror with VTD_MIRROR"

#: Debian's unstable suite, which has the newest QEMU.
UNSTABLE = "sid"

_CONCRETE_KERNEL = re.compile(r"linux-(image|binary|modules|base)-[0-9]")

Progress = Callable[[str], None]


class Archive:
    """Suites of the archive as this builder's apt sees them; `directory` holds its state."""

    def __init__(
        self, directory: Path, suites: Sequence[str], *, mirror: str | None = None, keyring: Path | None = None
    ) -> None:
        self._directory = directory
        self._config = directory / "apt.conf"
        self._keyring = keyring
        self.suites = tuple(suites)
        self._mirror = mirror

    @property
    def label(self) -> str:
        """The suites in words."""
        return " and ".join(self.suites)

    @contextmanager
    def opened(self, progress: Progress) -> Iterator[Self]:
        """Hold the state for this process, with the suite's package list fetched and its signature checked.

        Everything below needs it. Raises ImageError in apt's words.
        """
        with exclusive(self._directory.with_name(f"{self._directory.name}.lock"), f"Debian {self.label}", progress):
            progress(f"Debian {self.label}: fetching the package list")
            self._configure()
            self._run("apt-get", "-q", "-o", "APT::Update::Error-Mode=any", "update")
            yield self

    def closure(self, packages: Sequence[str]) -> tuple[str, ...]:
        """The names of `packages` and all they depend on, as an installation on an empty system would take them."""
        simulated = self._run("apt-get", "--simulate", "--quiet=2", "install", *packages)
        return tuple(sorted({line.split()[1] for line in simulated.splitlines() if line.startswith("Inst ")}))

    def kernel_packages(self, metapackage: str, suite: str) -> tuple[str, ...]:
        """The packages with a version in their names that `metapackage` (linux-image-amd64) of `suite` stands for.

        One up to Debian's 6.12; later kernels keep image, boot file and modules in packages of their own.
        """
        found: set[str] = set()
        pending = [metapackage]
        while pending:
            for name in self._kernel_dependencies(pending.pop(), suite) - found:
                found.add(name)
                pending.append(name)
        concrete = sorted(name for name in found if _CONCRETE_KERNEL.match(name))
        if not concrete:
            raise ImageError(f"package '{metapackage}' of Debian {suite} depends on no kernel")
        return tuple(concrete)

    def _kernel_dependencies(self, package: str, suite: str) -> set[str]:
        shown = self._run("apt-cache", "-o", f"APT::Default-Release={suite}", "depends", package)
        fields = (line.strip().partition(": ") for line in shown.splitlines())
        return {name for kind, _, name in fields if kind == "Depends" and name.startswith("linux-")}

    def available(self, names: Sequence[str]) -> tuple[Package, ...]:
        """The newest version of each of `names`; those the suite does not have are left out."""
        known = set(self._run("apt-cache", "pkgnames").split())
        asked = sorted(set(names) & known)
        if not asked:
            return ()
        shown = self._run("apt-cache", "show", "--no-all-versions", *asked)
        stanzas = [dict(_fields(stanza)) for stanza in shown.split("\n\n") if stanza.strip()]
        return tuple(sorted(Package(s["Package"], s["Version"], s["SHA256"]) for s in stanzas))

    def download(self, packages: Sequence[Package], into: Path) -> dict[Package, Path]:
        """Download the .deb files of `packages` into the directory `into`; apt checks them against the signed list."""
        self._run("apt-get", "-q", "download", *(f"{p.name}={p.version}" for p in packages), directory=into)
        found: dict[Package, Path] = {}
        for package in packages:
            # apt writes the version with its colon as %3a, and the architecture is amd64 or all.
            stem = f"{package.name}_{package.version.replace(':', '%3a')}"
            match = [path for path in into.glob(f"{package.name}_*.deb") if path.name.startswith(f"{stem}_")]
            if len(match) != 1:
                raise ImageError(f"apt did not deliver {package}", hint="try again; the mirror may be changing")
            found[package] = match[0]
        return found

    def _configure(self) -> None:
        """Write the state's configuration anew; apt reads nothing else when it is named by APT_CONFIG."""
        root = self._directory
        for below in ("lists/partial", "archives/partial", "empty"):
            (root / below).mkdir(parents=True, exist_ok=True)
        (root / "status").write_text("", encoding="utf-8")
        keyring = self._keyring or next((path for path in KEYRINGS if path.exists()), None)
        if keyring is None:
            raise ImageError("Debian's archive keyring is not there", hint="apt-get install debian-archive-keyring")
        mirror = self._mirror or os.environ.get(MIRROR) or host_mirror()
        options = f"arch=amd64 signed-by={keyring}"
        # Unstable's list is valid for a week only, and a mirror that is behind would have none. What is taken from it
        # is what the lock names by digest.
        late = {suite: " check-valid-until=no" if suite == UNSTABLE else "" for suite in self.suites}
        sources = "".join(f"deb [{options}{late[suite]}] {mirror} {suite} main\n" for suite in self.suites)
        (root / "sources.list").write_text(sources, encoding="utf-8")
        settings = {
            "Dir::State::status": root / "status",
            "Dir::State::lists": root / "lists",
            "Dir::Cache": root,
            "Dir::Cache::archives": root / "archives",
            "Dir::Etc::sourcelist": root / "sources.list",
            "Dir::Etc::sourceparts": root / "empty",
            "Dir::Etc::parts": root / "empty",
            "Dir::Etc::main": "/dev/null",
            "Dir::Etc::preferences": "/dev/null",
            "Dir::Etc::preferencesparts": root / "empty",
            "APT::Architecture": "amd64",
            "APT::Install-Recommends": "false",
            # Locked by us; and as root apt would drop to a user that cannot write below a home directory.
            "Debug::NoLocking": "true",
            "APT::Sandbox::User": "",
            "Acquire::Languages": "none",
            "Acquire::PDiffs": "false",
            "Acquire::Retries": "3",
            "Acquire::http::Timeout": "30",
        }
        lines = [f'{key} "{value}";' for key, value in settings.items()]
        partial = self._config.with_suffix(".partial")
        partial.write_text("\n".join([*lines, *_network_settings()]) + "\n", encoding="utf-8")
        partial.replace(self._config)

    def _run(self, *argv: str, directory: Path | None = None) -> str:
        env = {**os.environ, "APT_CONFIG": str(self._config), "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
        # A silent mirror is given up by apt itself (Acquire::http::Timeout).
        done = subprocess.run([*WITH_US, *argv], cwd=directory, env=env, capture_output=True, text=True, check=False)
        if done.returncode:
            unwritten = said_by_program(done.stderr, f"what {argv[0]} fetches", directory or self._directory)
            if unwritten is not None:
                raise unwritten
            said = [line for line in done.stderr.splitlines() if line.startswith(("E:", "W:"))] or [done.stderr]
            raise ImageError("\n    ".join([f"{' '.join(argv[:4])} failed:", *said[:8]]), hint=_REMEDY)
        return done.stdout


def host_mirror() -> str:
    """Give the mirror of Debian's archive that the host's apt uses; ImageError where it uses none."""
    # Without release files, so that a system whose lists were never fetched tells its mirror too.
    argv = ["apt-get", "indextargets", "--no-release-info", "--format", "$(REPO_URI)", "Created-By: Packages"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    for line in done.stdout.splitlines():
        if line.rstrip("/").endswith("/debian"):
            return line.rstrip("/")
    raise ImageError("the host's apt uses no mirror of Debian's archive", hint=f"name one with {MIRROR}")


def apt_found() -> bool:
    """Whether this host has the tools that building needs: apt's and dpkg's."""
    return all(shutil.which(tool) for tool in ("apt-get", "apt-cache", "apt-config", "dpkg-deb", "tar"))


def _network_settings() -> list[str]:
    """The host's settings for reaching mirrors, in apt's own syntax."""
    dump = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True).stdout
    return [line for line in dump.splitlines() if _NETWORK_SETTING.fullmatch(line)]


def _fields(stanza: str) -> list[tuple[str, str]]:
    """The one-line fields of a control paragraph."""
    pairs = (line.partition(": ") for line in stanza.splitlines() if line[:1].strip())
    return [(name, value) for name, _, value in pairs]
