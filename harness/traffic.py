"""Traffic over a NIC under its own kernel driver: random payload both ways, compared by hash at both ends.

Frame i carries its number (32-bit big-endian) and the i-th slice of a stream that both sides make from a seed:
SHA-256(seed + counter), the counter a 64-bit big-endian number from 0. docs/agent-protocol.md says the same.
"""

from __future__ import annotations

import hashlib
import secrets
import struct
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from harness.errors import WaitTimeout
from harness.judgement import Judgement, StepEvidence, nobody_faulted
from harness.nesting import acting
from harness.session import AttachedDevice, Session
from harness.verdict import Finding, Outcome, Witness, WitnessVerdict
from harness.waiting import Deadline, wait_for
from harness.wire import TRAFFIC_HEADER, Wire
from harness.witnesses.host_trace import TRANSLATED

_NUMBER = struct.Struct("!I")
_TRAFFIC_S = 30.0

#: Seconds of silence after which no further frame is expected of a guest that is through: on a loaded host its last
#: ones may still be on their way through the machine that it is nested in.
_SILENT_S = 5.0


@dataclass(frozen=True, slots=True)
class Load:
    """How many frames go each way, and the bytes of each payload (46 to 1500, its number included)."""

    frames: int
    size: int


def stream(seed: bytes, length: int) -> bytes:
    """Give the first `length` bytes of the stream of `seed`."""
    blocks = range(-(-length // 32))
    return b"".join(hashlib.sha256(seed + block.to_bytes(8, "big")).digest() for block in blocks)[:length]


def payloads(seed: bytes, load: Load) -> list[bytes]:
    """Give the payloads of all frames of one direction."""
    share = load.size - _NUMBER.size
    whole = stream(seed, load.frames * share)
    return [_NUMBER.pack(i) + whole[i * share : (i + 1) * share] for i in range(load.frames)]


@contextmanager
def counting_translations(session: Session) -> Iterator[None]:
    """Have QEMU trace each translated DMA meanwhile: the proof that the NIC's DMA really goes through the unit."""
    with session.watching(TRANSLATED):
        yield


def exchange(session: Session, device: AttachedDevice, load: Load) -> int:
    """Send and receive `load` over the device's wire and record what came through at either end.

    Gives the nanoseconds from when the guest listened until it had all.
    """
    owner, device = acting(session, device)
    owner.bind_kernel_driver(device)
    wire = session.wire(device)
    wire.drain()
    to_guest, to_host = secrets.token_bytes(16), secrets.token_bytes(16)
    session.listening.clear()
    with ThreadPoolExecutor(1, thread_name_prefix="traffic") as pool:
        guest = pool.submit(
            owner.call,
            "traffic",
            bdf=device.address,
            frames=load.frames,
            size=load.size,
            send_seed=to_host.hex(),
            receive_seed=to_guest.hex(),
            timeout_s=_TRAFFIC_S,
            within_s=_TRAFFIC_S + 15,
        )
        deadline = Deadline.after(_TRAFFIC_S + 15)
        wait_for(
            "the guest to listen on its NIC",
            lambda: session.listening.is_set() or guest.done(),
            deadline,
            abort=[session.abort],
        )
        if session.listening.is_set():
            for payload in payloads(to_guest, load):
                wire.send(TRAFFIC_HEADER + payload)
        received = _receive(wire, load, deadline, guest)
        answer = guest.result()
    host = {
        "sent_sha256": _digest(payloads(to_guest, load)),
        "asked_sha256": _digest(payloads(to_host, load)),
        "received_sha256": _digest(received),
        "received_frames": len(received),
    }
    session.record(
        "traffic",
        device=device.name,
        source_id=str(device.source),
        load={"frames": load.frames, "size": load.size},
        guest=answer,
        host=host,
    )
    return int(answer["elapsed_ns"])


def _digest(frames: list[bytes]) -> str:
    """Hash payloads as the guest does: in order, without their numbers."""
    return hashlib.sha256(b"".join(frame[_NUMBER.size :] for frame in frames)).hexdigest()


def _receive(wire: Wire, load: Load, deadline: Deadline, guest: Future[dict[str, Any]]) -> list[bytes]:
    """Take frames off the wire until each number has been seen, or `_SILENT_S` are silent after the guest was through.

    They are sorted by number.

    Raises what the guest's side of the exchange failed with, as soon as it does.
    """
    found: dict[int, bytes] = {}

    def failed() -> Exception | None:
        error = guest.exception() if guest.done() else None
        return error if isinstance(error, Exception) else None

    def matching(frame: bytes) -> bool:
        return frame[12:14] == TRAFFIC_HEADER[12:14]

    while len(found) < load.frames and not deadline.expired:
        through = guest.done()
        try:
            frame = wire.receive(Deadline.after(_SILENT_S if through else 1.0), matching, abort=[failed])
        except WaitTimeout:
            if through:
                break
            continue
        payload = frame[14 : 14 + load.size]
        if len(payload) == load.size:
            found.setdefault(_NUMBER.unpack(payload[:4])[0], payload)
    return [found[number] for number in sorted(found)]


def unlike(evidence: StepEvidence, device: str, *loads: Load) -> str | None:
    """Tell how the exchanges of a step are not these, one after the other over `device`; None if they are."""
    seen = [entry.data for entry in evidence.observations("traffic")]
    wanted = [(device, load.frames, load.size) for load in loads]
    found = [(data["device"], data["load"]["frames"], data["load"]["size"]) for data in seen]
    return None if found == wanted else f"recorded are exchanges of {found or 'nothing'}, not of {wanted}"


def judge_exchange(evidence: StepEvidence, data: dict[str, Any], ref: str) -> Finding:
    """Judge one exchange by what the host knows: the bytes it sent, and those it asked the guest to send."""
    frames = data["load"]["frames"]
    guest, host = data["guest"]["received"], data["host"]
    problems = []
    if (guest["frames"], guest["sha256"]) != (frames, host["sent_sha256"]):
        problems.append(f"the guest received {guest['frames']} of {frames} frames, or other bytes than were sent")
    if (host["received_frames"], host["received_sha256"]) != (frames, host["asked_sha256"]):
        problems.append(
            f"the host received {host['received_frames']} of {frames} frames, or other bytes than were sent"
        )
    if problems:
        return Finding(outcome=Outcome.FAIL, text="; ".join(problems), step=evidence.index, refs=(ref,))
    text = f"{frames} frames each way over '{data['device']}', the same bytes at both ends"
    return Finding(outcome=Outcome.PASS, text=text, step=evidence.index, refs=(ref,))


def judge_exchanges(evidence: StepEvidence, *, translated: bool = True) -> Judgement:
    """Judge all exchanges of a step, during which nobody may have faulted.

    `translated` is whether the DMA must have gone through the remapping unit, or else around it.
    """
    exchanges = evidence.observations("traffic")
    findings = [judge_exchange(evidence, entry.data, entry.ref) for entry in exchanges]
    frames = sum(2 * entry.data["load"]["frames"] for entry in exchanges)
    path = path_taken(
        evidence,
        {str(entry.data["source_id"]) for entry in exchanges},
        frames,
        translated=translated,
        exchanges=len(exchanges),
    )
    if path.verdict is not WitnessVerdict.CONFIRMS:
        outcome = Outcome.FAIL if path.verdict is WitnessVerdict.DENIES else Outcome.ERROR
        findings.append(Finding(outcome=outcome, text=path.evidence, step=evidence.index, refs=path.refs))
    others = nobody_faulted(evidence)
    if others.verdict is not WitnessVerdict.CONFIRMS:
        findings.append(Finding(outcome=Outcome.FAIL, text=others.evidence, step=evidence.index, refs=others.refs))
    return Judgement(findings=tuple(findings), witnesses=(path, others))


def path_taken(
    evidence: StepEvidence, sources: set[str], frames: int, *, translated: bool, exchanges: int = 1
) -> Witness:
    """Witness which way the NIC's DMA took: each frame needs at least one DMA, and QEMU traces each translation.

    The trace is switched on for each of the `exchanges`.
    """
    traced = [
        entry
        for entry in evidence.entries
        if entry.source == "trace" and entry.kind == "translated" and entry.data["source_id"] in sources
    ]
    watched = sum(
        entry.source == "trace" and entry.kind == "watching" and TRANSLATED in entry.data["events"]
        for entry in evidence.entries
    )
    if watched < exchanges:
        text = f"QEMU's trace of translations was switched on for {watched} of {exchanges} exchanges"
        return Witness(name="translation", step=evidence.index, verdict=WitnessVerdict.MISSING, evidence=text)
    count = sum(int(entry.data["count"]) for entry in traced)
    right = count >= frames if translated else count == 0
    if count:
        text = f"QEMU translated {count} DMAs of {', '.join(sorted(sources))} for {frames} frames"
    else:
        text = f"not one DMA of {', '.join(sorted(sources))} went through the remapping unit"
    verdict = WitnessVerdict.CONFIRMS if right else WitnessVerdict.DENIES
    refs = tuple(entry.ref for entry in traced[:3])
    return Witness(name="translation", step=evidence.index, verdict=verdict, evidence=text, refs=refs)
