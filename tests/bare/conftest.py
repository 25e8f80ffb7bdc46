from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from harness.bare.running import BareRole, bare_session
from harness.bare.session import BareSession
from harness.equipment import HostFacts, open_host
from harness.evidence import VariantDirectory
from harness.machine.spec import IommuSpec, MachineSpec

#: How the tables of a bare machine can be: what it is called, the options of its vIOMMU, and the levels.
TRANSLATIONS = {
    "legacy-48": ("legacy", {"aw_bits": 48}, 4),
    "legacy-39": ("legacy", {"aw_bits": 39}, 3),
    "second-stage": ("second-stage", {"scalable_mode": "on"}, 4),
    "first-stage": ("first-stage", {"scalable_mode": "on", "first_stage": "on"}, 4),
}


@pytest.fixture(scope="session")
def host() -> HostFacts:
    return open_host(print)


@pytest.fixture
def session_of(qemu_build, qemu_facts, tmp_path):
    @contextmanager
    def start(*roles: BareRole, mode: str = "legacy-48", **options: Any) -> Iterator[BareSession]:
        translation, offered, _ = TRANSLATIONS[mode]
        spec = MachineSpec(
            kind="bare",
            translation=translation,
            image="",
            iommus=(IommuSpec({**offered, **options}),),
            root_ports=2,
            pci_bridges=1,
            wires=("wire",) if any("netdev" in role.qdev for role in roles) else (),
        )
        directory = VariantDirectory(tmp_path)
        with (
            directory.journal() as journal,
            bare_session(
                spec, roles, qemu=qemu_build, facts=qemu_facts, directory=directory, journal=journal
            ) as session,
        ):
            yield session

    return start
