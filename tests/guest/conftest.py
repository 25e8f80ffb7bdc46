"""Machines restored from the cache's templates, which are made first if they are not there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import pytest

from harness.evidence import VariantDirectory
from harness.guest import Guest
from harness.machine.launch import Machine
from harness.machine.spec import IommuSpec, MachineSpec
from harness.templates.making import Ingredients
from harness.templates.store import Templates

RESTORED_SPEC = MachineSpec(
    image="",
    kernel_args=("intel_iommu=on",),
    iommus=(IommuSpec({"intremap": True, "caching_mode": True}),),
    wires=("lan",),
)

RestoredMachine = Callable[..., AbstractContextManager[Machine]]
Restored = Callable[..., AbstractContextManager[Guest]]


@pytest.fixture
def restored_machine(qemu_build, qemu_facts, guest_image, image_store, tmp_path) -> RestoredMachine:
    """Start a machine of RESTORED_SPEC from its template, halted, with its files in a directory called `name`."""
    templates = Templates(image_store.cache)
    what = Ingredients(spec=RESTORED_SPEC, qemu=qemu_build, facts=qemu_facts, image=guest_image)

    @contextmanager
    def start(name: str = "restored", *, own_memory: bool = False) -> Iterator[Machine]:
        directory = VariantDirectory(tmp_path / name)
        directory.path.mkdir()
        with directory.journal() as journal:
            with templates.ready(what, directory.path / "template", print, nullcontext) as template:
                machine = Machine.start(
                    RESTORED_SPEC,
                    qemu=qemu_build,
                    facts=qemu_facts,
                    image=guest_image,
                    directory=directory,
                    journal=journal,
                    template=template,
                    own_memory=own_memory,
                )
            with machine:
                yield machine

    return start


@pytest.fixture
def restored(restored_machine) -> Restored:
    """The same, running and with its agent reached."""

    @contextmanager
    def start(name: str = "restored", *, own_memory: bool = False) -> Iterator[Guest]:
        with restored_machine(name, own_memory=own_memory) as machine, Guest.boot(machine) as guest:
            yield guest

    return start


@pytest.fixture
def restored_guest(restored) -> Iterator[Guest]:
    """A guest from the template."""
    with restored() as guest:
        yield guest
