"""forge: have a NIC in a nested guest send an interrupt message of another device, or its own, by its MSI-X."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from harness.errors import HarnessError, WaitTimeout
from harness.forgery import judge_forgery
from harness.handed_vectors import handed_line
from harness.judgement import Judgement, StepEvidence
from harness.nesting import acting
from harness.pci_config import InterruptMessage, interrupt_message, vector_table
from harness.remapping import entry_named
from harness.scenario.expectation import (
    EXPECTATION,
    Expectation,
    expected,
    expects_block,
    refuse_other_than_interrupts,
)
from harness.scenario.section import Section, complaint
from harness.scenario.step import Reference, Step
from harness.scenario.values import Name
from harness.session import AttachedDevice, Session
from harness.vtd.faults import Access
from harness.vtd.interrupts import INTERRUPT_RANGE, InterruptRemapEntry, InterruptRequest
from harness.vtd.registers import DEFAULT_BASE, IRTA, InterruptRemapTableAddress
from harness.waiting import Abort, Deadline, wait_for

#: Seconds an interrupt that must come is waited for, and those that one which must not is given to come all the same.
_COMES_S, _STAYS_AWAY_S = 10.0, 0.5
_NESTED_S = 60.0


class ForgeBody(Section):
    """Who sends, and whose message."""

    device: Name = Field(description="An e1000e that the guest was handed with its MSI-X exposed; its interface is up.")
    guest: Name = Field(description="The guest that has it; its kernel needs the argument iomem=relaxed.")
    victim: Name | None = Field(
        default=None, description="An assigned edu of the platform whose message is sent; if not given, its own is."
    )
    format: Literal["remappable", "compatibility"] = Field(
        default="remappable", description="As the platform gave it, or with vector and destination in it."
    )

    @model_validator(mode="after")
    def _check_whole(self) -> Self:
        if self.victim is None and self.format != "remappable":
            raise complaint("its own message is sent as it is", at=("format",), on_key=True)
        return self


class Forge(Step, keyword="forge"):
    """Have user space of a nested guest write an interrupt message into the real MSI-X table of its NIC, and send it.

    The counters of the message's owner tell whether it came. `expect: landed` means that it did.
    """

    forge: ForgeBody
    expect: Expectation = Field(description=EXPECTATION)

    @model_validator(mode="after")
    def _check_reason(self) -> Self:
        refuse_other_than_interrupts(self.expect)
        return self

    @property
    def expects_block(self) -> bool:
        """Whether the specification asks for a refusal."""
        return expects_block(self.expect)

    @property
    def is_control(self) -> bool:
        """Whether it must come."""
        return self.expect == "landed"

    @property
    def forges_interrupts(self) -> bool:
        """It does."""
        return True

    def summary(self) -> str:
        """Say in a line what is done."""
        whose = f"the message of '{self.forge.victim}'" if self.forge.victim else "its own message"
        how = " in compatibility format" if self.forge.format == "compatibility" else ""
        return f"'{self.forge.device}' in guest '{self.forge.guest}' sends {whose}{how}"

    def references(self) -> list[Reference]:
        """Name the devices and the guest."""
        names = [
            Reference.use("device", self.forge.device, "forge", "device"),
            Reference.use("guest", self.forge.guest, "forge", "guest"),
        ]
        if self.forge.victim:
            names.append(Reference.use("device", self.forge.victim, "forge", "victim"))
        return names

    def needs_assigned(self) -> tuple[str, ...]:
        """The platform has given the victim a message."""
        return (self.forge.victim,) if self.forge.victim else ()

    def needs_handed(self) -> list[tuple[str, str]]:
        """The guest has the NIC."""
        return [(self.forge.device, self.forge.guest)]

    def needs_nics(self) -> list[tuple[str, str]]:
        """The guest's own driver has it."""
        return [(self.forge.device, self.forge.guest)]

    def needs_models(self) -> list[tuple[str, tuple[str, ...]]]:
        """The agent knows the vectors of the one, and has the platform give a message to the other."""
        victim = [(self.forge.victim, ("edu",))] if self.forge.victim else []
        return [(self.forge.device, ("e1000e",)), *victim]

    def needs_exposed(self) -> tuple[str, ...]:
        """The message is put into the real table."""
        return (self.forge.device,)

    def needs_kernel_args(self) -> list[tuple[str, str]]:
        """User space writes registers of a NIC that its kernel's driver has (CONFIG_IO_STRICT_DEVMEM)."""
        return [(self.forge.guest, "iomem=relaxed")]

    def run(self, session: Session) -> None:
        """Send the message, and record what the counters of both kernels say of it."""
        device = session.device(self.forge.device)
        inner, mine = acting(session, device)
        victim = session.device(self.forge.victim) if self.forge.victim else None
        message = None if victim is None else self._message(session, victim)
        before = _counters(session, device, inner, mine, victim)
        purpose = "attack" if self.expects_block else "control"
        send = {} if message is None else {"address": message.address, "data": message.data}
        with session.provoking() if self.expects_block else nullcontext():
            answer = inner.call("vector_send", bdf=mine.address, purpose=purpose, within_s=_NESTED_S, **send)
        number, sent = int(answer["vector"]), tuple(answer["sent"])
        real = next(vector.message for vector in vector_table(session, device) if vector.number == number)
        if tuple(answer["own"]) != (real.address, real.data):
            raise HarnessError(f"guest '{self.forge.guest}' does not reach the MSI-X table of '{device.name}'")
        chosen = _chosen(number, victim)

        def count() -> list[dict[str, Any]]:
            return chosen(before, _counters(session, device, inner, mine, victim))

        stays_away = self.expects_block and not session.unbroken
        counters = _rising(count, _STAYS_AWAY_S if stays_away else _COMES_S, session.abort)
        owner = next(counter for counter in counters if counter["owner"])
        request = InterruptRequest.read(*sent)
        session.record(
            "msi",
            device=device.name,
            model=device.model,
            function=mine.address,
            source_id=str(device.source),
            by="msi",
            attack=self.expects_block,
            address=sent[0],
            data=sent[1],
            index=0 if request is None else request.index,
            before=owner["before"],
            after=owner["after"],
            counters=counters,
            recipe=self.summary(),
            fault_processing_disabled=False,
        )

    def judge(self, evidence: StepEvidence) -> Judgement:
        """Weigh the witnesses of the one message."""
        return judge_forgery(evidence, expected(self.expect, Access.WRITE, evidence.qemu))

    def _message(self, session: Session, victim: AttachedDevice) -> InterruptMessage:
        session.call("device_msi_enable", device=victim.name)
        message = interrupt_message(session, victim)
        found = entry_named(session, message) if self.forge.format == "compatibility" else None
        if found is None:
            return message
        entry = InterruptRemapEntry.decode(bytes.fromhex(found["data"]))
        extended = InterruptRemapTableAddress(session.guest.machine.register(DEFAULT_BASE + IRTA, 8)).extended_mode
        destination = entry.destination if extended else entry.destination >> 8 & 0xFF
        if destination > 0xFF:
            raise HarnessError(f"no message in compatibility format goes to destination {destination:#x}")
        # Destination in bits 19:12, redirection hint in bit 3, logical mode in bit 2 (VT-d spec 5.1.2.1).
        bits = destination << 12 | entry.redirection_hint << 3 | entry.destination_mode << 2
        return InterruptMessage(INTERRUPT_RANGE.start | bits, entry.vector)


_Lines = dict[str, list[dict[str, Any]]]


def _counters(
    session: Session, device: AttachedDevice, inner: Session, mine: AttachedDevice, victim: AttachedDevice | None
) -> _Lines:
    """Read /proc/interrupts: the NIC's lines in the platform and in its guest, and the victim's."""

    def lines(where: Session, one: AttachedDevice) -> list[dict[str, Any]]:
        return list(where.call("interrupts", bdf=one.address, within_s=_NESTED_S)["interrupts"])

    told = {"platform": lines(session, device), "guest": sorted(lines(inner, mine), key=lambda line: line["irq"])}
    return {**told, "victim": [] if victim is None else lines(session, victim)}


def _chosen(number: int, victim: AttachedDevice | None) -> Callable[[_Lines, _Lines], list[dict[str, Any]]]:
    """Give what takes, of two readings, the lines of the vector `number` and that of the victim."""

    def pick(lines: _Lines) -> list[tuple[str, Mapping[str, Any] | None, bool]]:
        guest = lines["guest"][number] if number < len(lines["guest"]) else None
        found: list[tuple[str, Mapping[str, Any] | None, bool]] = [
            ("in the platform", handed_line(lines["platform"], number), victim is None),
            ("in the guest", guest, victim is None),
        ]
        if victim is not None:
            found.append(("of the victim", lines["victim"][0] if len(lines["victim"]) == 1 else None, True))
        return found

    def choose(before: _Lines, after: _Lines) -> list[dict[str, Any]]:
        chosen = []
        for (where, old, owner), (_, new, _) in zip(pick(before), pick(after), strict=True):
            if old is None or new is None:
                raise HarnessError(f"/proc/interrupts has not one line {where} for vector {number}")
            chosen.append(
                {"where": where, "name": new["name"], "before": old["count"], "after": new["count"], "owner": owner}
            )
        return chosen

    return choose


def _rising(count: Callable[[], list[dict[str, Any]]], within_s: float, abort: Abort) -> list[dict[str, Any]]:
    """Read the counters until all of the owner's have risen, or the time is up."""

    def risen() -> bool:
        return all(counter["after"] > counter["before"] for counter in count() if counter["owner"])

    with suppress(WaitTimeout):
        wait_for("the interrupt", risen, Deadline.after(within_s), abort=[abort], every_s=0.1)
    return count()
