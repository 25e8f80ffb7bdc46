"""Small steps and devices for tests of the loader; defined inside `define` so that the real ones stay undisturbed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Annotated, Literal

from pydantic import Field, model_validator

from harness.scenario.device import DEVICES, Device
from harness.scenario.section import Section, Shorthand
from harness.scenario.step import STEPS, Reference, Step
from harness.scenario.target import TargetField
from harness.scenario.values import Access, Address, Name, OnOff, Size


class AssignBody(Section):
    device: Name
    domain: Name | None = None


class MapBody(Section):
    device: Name
    buffer: Name
    iova: Address
    size: Size = 4096
    access: Access = "rw"


class PlantBody(Section):
    canary: Name
    size: Size


class DmaBody(Section):
    device: Name
    write: Annotated[int, Field(ge=1)] | None = None
    read: Annotated[int, Field(ge=1)] | None = None
    to: TargetField | None = None
    source: TargetField | None = Field(default=None, alias="from")

    @model_validator(mode="after")
    def _one_direction(self) -> DmaBody:
        if (self.write is None) == (self.read is None):
            raise ValueError("A DMA either writes or reads")
        return self


class Blocked(Section):
    reason: Literal["pte-write", "pte-read"]


class BlockedExpectation(Section):
    blocked: Blocked


class WaitBody(Section):
    within: str
    link: OnOff = "on"
    mac: str | None = None


class Inert:
    """What a step must be able to do, without doing it."""

    def run(self, session) -> None: ...

    def summary(self) -> str:
        return "nothing"

    def judge(self, evidence) -> None: ...


@contextmanager
def defined() -> Iterator[None]:
    """Within, exactly the words below are known."""
    with STEPS.emptied(), DEVICES.emptied():
        _define()
        yield


def _define() -> None:
    class Edu(Device, model="edu"):
        """A device that copies where it is told."""

        def qdev(self) -> dict[str, object]:
            return {"driver": "edu"}

    class E1000e(Device, model="e1000e"):
        """A NIC."""

        mac: str | None = None

        def qdev(self) -> dict[str, object]:
            return {"driver": "e1000e"}

    class Quiet(Inert, Step, keyword="quiet"):
        """Do nothing."""

        quiet: bool

    class Assign(Inert, Step, keyword="assign"):
        """Give a device to a domain."""

        assign: Annotated[AssignBody, Shorthand("device")]

        def references(self) -> Iterable[Reference]:
            yield Reference.use("device", self.assign.device, "assign", "device")
            if self.assign.domain:
                yield Reference.define("domain", self.assign.domain, "assign", "domain")

    class Map(Inert, Step, keyword="map"):
        """Map a buffer."""

        map: MapBody

        def references(self) -> Iterable[Reference]:
            yield Reference.use("device", self.map.device, "map", "device")
            yield Reference.define("buffer", self.map.buffer, "map", "buffer")

    class Plant(Inert, Step, keyword="plant"):
        """Plant a canary."""

        plant: PlantBody

        def references(self) -> Iterable[Reference]:
            yield Reference.define("canary", self.plant.canary, "plant", "canary", once=True)

    class Dma(Inert, Step, keyword="dma"):
        """Make a device issue a DMA."""

        dma: DmaBody
        expect: Literal["landed"] | BlockedExpectation | None = None

        def references(self) -> Iterable[Reference]:
            yield Reference.use("device", self.dma.device, "dma", "device")
            for field, target in (("to", self.dma.to), ("from", self.dma.source)):
                if isinstance(target, str):
                    yield Reference.use(("buffer", "canary"), target, "dma", field)

    class Wait(Inert, Step, keyword="wait"):
        """Wait for the link."""

        wait: WaitBody
