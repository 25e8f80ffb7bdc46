"""vectors: have a NIC in a nested guest interrupt, and prove by which way each of its vectors is delivered."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

from pydantic import Field

from harness.delivery import Remapping
from harness.errors import InfraError
from harness.handed_vectors import judge_vectors
from harness.judgement import Judgement, StepEvidence, single
from harness.nesting import acting
from harness.pci_config import Vector, vector_table
from harness.remapping import entry_named, unit_registers
from harness.scenario.section import Section
from harness.scenario.step import Reference, Step
from harness.scenario.values import Name
from harness.session import AttachedDevice, Session
from harness.traffic import Load, exchange, judge_exchange, unlike
from harness.verdict import Outcome
from harness.witnesses.host_trace import INTERRUPT_REMAPPED

#: The first frame: the driver asks for its interrupts when the interface comes up.
_FIRST = Load(1, 64)

#: Seconds for the agent in the nested guest to read its kernel's counters.
_NESTED_S = 60.0


class VectorsBody(Section):
    """Whose interrupts, and how they must be remapped."""

    device: Name = Field(description="A NIC that the guest was handed, under its kernel driver there, with MSI-X.")
    guest: Name = Field(description="The guest that has it.")
    remapping: Remapping = Field(
        description="`off`: not at all; `xapic` or `x2apic`: with destinations of 8 or of 32 bits (IRTA.EIME)."
    )
    frames: Annotated[int, Field(ge=1, le=1000)] = Field(default=32, description="Frames each way that cause them.")


class Vectors(Step, keyword="vectors"):
    """Move frames through a NIC in a nested guest, and prove by which way the interrupts they cause are delivered.

    /proc/interrupts must rise in the guest, and by no less in the platform, by what QEMU traced of the NIC's messages.
    The names of the chips, the unit's registers, the NIC's own MSI-X table and the entries that it names must agree on
    the way.
    """

    vectors: VectorsBody

    @property
    def _load(self) -> Load:
        return Load(self.vectors.frames, 1200)

    def summary(self) -> str:
        """Say in a line what is done."""
        body = self.vectors
        way = "without remapping" if body.remapping == "off" else f"remapped ({body.remapping})"
        return f"the interrupts of '{body.device}' are delivered to guest '{body.guest}' {way}"

    def references(self) -> list[Reference]:
        """Name the NIC and the guest."""
        return [
            Reference.use("device", self.vectors.device, "vectors", "device"),
            Reference.use("guest", self.vectors.guest, "vectors", "guest"),
        ]

    def needs_nics(self) -> list[tuple[str, str]]:
        """The guest's own driver takes its interrupts."""
        return [(self.vectors.device, self.vectors.guest)]

    def needs_handed(self) -> list[tuple[str, str]]:
        """The platform hands them on."""
        return [(self.vectors.device, self.vectors.guest)]

    def run(self, session: Session) -> None:
        """Exchange frames, and record what was counted before and after and what stands in registers, NIC and table."""
        device = session.device(self.vectors.device)
        inner, mine = acting(session, device)
        exchange(session, device, _FIRST)
        vectors = _used(session, device)
        # Each count begins after that of who passes the interrupt on, and ends before it.
        with session.watching(INTERRUPT_REMAPPED):
            before = _counted(session, device)
            guest_before = _counted(inner, mine)
            exchange(session, device, self._load)
            guest_after = _counted(inner, mine)
            after = _counted(session, device)
        if _used(session, device) != vectors:
            raise InfraError(f"the platform has given '{device.name}' other interrupt messages meanwhile")
        session.record(
            "vectors",
            device=device.name,
            guest=self.vectors.guest,
            source_id=str(device.source),
            platform_before=before,
            platform_after=after,
            guest_before=guest_before,
            guest_after=guest_after,
            vectors=[
                {
                    "number": vector.number,
                    "message": (vector.message.address, vector.message.data),
                    "entry": entry_named(session, vector.message),
                }
                for vector in vectors
            ],
            **unit_registers(session),
        )

    def judge(self, evidence: StepEvidence) -> Judgement:
        """Let each witness say what it saw of each vector, and compare the frames at both ends."""
        exchanges = evidence.observations("traffic")
        if not exchanges:
            return single(Outcome.ERROR, "the exchange did not come to its end", evidence.index)
        wrong = unlike(evidence, self.vectors.device, _FIRST, self._load)
        if wrong is not None:
            return single(Outcome.ERROR, wrong, evidence.index)
        judged = judge_vectors(evidence, self.vectors.remapping, self.summary())
        frames = tuple(judge_exchange(evidence, entry.data, entry.ref) for entry in exchanges)
        return replace(judged, findings=(*judged.findings, *frames))


def _used(session: Session, device: AttachedDevice) -> list[Vector]:
    """Give the vectors that are not masked; the others have no message."""
    return [vector for vector in vector_table(session, device) if not vector.masked]


def _counted(session: Session, device: AttachedDevice) -> list[dict[str, Any]]:
    """Give the lines of /proc/interrupts for `device` in the guest of `session`."""
    lines: list[dict[str, Any]] = session.call("interrupts", bdf=device.address, within_s=_NESTED_S)["interrupts"]
    return lines
