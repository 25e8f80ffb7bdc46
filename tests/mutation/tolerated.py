"""What a judge may ignore: each place at which a change may keep a PASS, with the reason.

A place is SOURCE/KIND, the JSON path (`^t` and `^step` are the entry's own), and the kinds of changes; source, kind and
path as patterns of `fnmatch`. Everything else must turn the verdict.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from harness.evidence import Entry
from tests.mutation.trial import Survivor

BITS = "other bits of the register than those that the step speaks of"
ATLAS = "the atlas's words for what was provoked; the verdict rests on faults and bytes"
PEOPLE = "only for people"
NOT_REQUIRED = "left out by older recordings or by other devices; where it stands, its type is held to"
TWICE = "stands in the journal twice, and the agent's answer is held against the log line by line"


@dataclass(frozen=True, slots=True)
class Tolerated:
    """One line of the list; `steps` are the keywords of the steps in which it holds."""

    what: str
    path: str
    changes: str
    reason: str
    steps: tuple[str, ...] = ()
    when: Callable[[Entry], bool] = lambda _: True

    def covers(self, survivor: Survivor) -> bool:
        """Whether it explains that a change kept the PASS."""
        place = survivor.place
        return (
            fnmatchcase(place.what, self.what)
            and fnmatchcase(place.path, self.path)
            and place.change in (self.changes.split("|") if self.changes != "*" else [place.change])
            and (not self.steps or survivor.keyword in self.steps)
            and self.when(survivor.change.original)
        )


def reason_for(survivor: Survivor) -> str | None:
    """Give why a change may keep a PASS; None if it may not. What ends in no verdict never may."""
    if survivor.raised:
        return None
    return next((one.reason for one in TOLERATED if one.covers(survivor)), None)


_ALL, _VALUE, _OPTIONAL = "*", "value", "missing|value"

_INTERRUPTS, _UNIT = ("delivery", "vectors"), ("cap", "ecap", "gsts", "irta")
_BARE = ("provoke", "recording", "interrupt", "invalidate", "abort")

TOLERATED = (
    # -- what no judge reads: the story of a run for people ---------------------------------------------------------
    *(
        Tolerated(kind, "*", _ALL, reason)
        for kind, reason in {
            "qmp/command": f"{PEOPLE}: what was asked of QEMU; what came of it is told by trace, memory and guest",
            "[*]/qmp/*": f"{PEOPLE}: a nested guest's QEMU is no witness",
            "agent/call(*)": f"{PEOPLE}: what a judge needs of an answer is recorded as an observation",
            "agent/dma-done": f"{PEOPLE}: that a DMA was over; announced it was before",
            "agent/clock": f"{PEOPLE}: how far the guest's clock was behind",
            "agent/traffic": f"{PEOPLE}: that the guest listened; the frames tell",
            "ssh/run": f"{PEOPLE}: a command and its status, which the run itself looks at",
            "[*]/ssh/run": f"{PEOPLE}: a command and its status, which the run itself looks at",
            "tables/*": f"{PEOPLE}: which entries were edited; the atlas takes its words from the recipe, and the "
            "faults and bytes show what was edited",
            "runner/platform": f"{PEOPLE}: which QEMU runs the nested guests",
            "runner/paced": f"{PEOPLE}: how long a fault was held back",
            "runner/buffer": f"{PEOPLE}: where a buffer lies; the step that aims at it records where it aimed",
            "process/exit": "redundant with runner/refused, which has status and words",
            "[*]/process/start": f"{PEOPLE}: a nested guest's QEMU; that the guest answered is told by its agent",
            "[*]/process/qemu": f"{PEOPLE}: the version of a nested guest's QEMU",
            "[*]/process/stop": f"{PEOPLE}: how a nested guest's QEMU ended",
            "observation/receive-descriptor": f"{PEOPLE}: what the NIC wrote back; bytes and faults tell",
            "observation/warmed-up": f"{PEOPLE}: the round of a comparison that does not count",
        }.items()
    ),
    # -- the envelope --------------------------------------------------------------------------------------------
    Tolerated("*", "^t", _VALUE, f"{PEOPLE}: lines are ordered by their number; times of the trace are held to it"),
    Tolerated("qmp/event", "^step", "value|null", "QMP tells of events when they happen, whatever step that is in"),
    # -- runner and processes ------------------------------------------------------------------------------------
    Tolerated("runner/step-*", "keyword", "missing", NOT_REQUIRED),
    Tolerated("runner/step-*", "line", _OPTIONAL, f"{PEOPLE}: the plan has it"),
    Tolerated("runner/step-*", "text", _OPTIONAL, f"{PEOPLE}: the plan has it"),
    Tolerated("runner/step-*", "duration_s", _OPTIONAL, PEOPLE),
    Tolerated("runner/device", "address", _OPTIONAL, "redundant with source_id; a bridge's devices have its ID there"),
    Tolerated("runner/device", "facts*", _ALL, f"{PEOPLE}: what sysfs says of the device"),
    Tolerated("process/start", "pid", _OPTIONAL, PEOPLE),
    Tolerated("process/start", "argv*", _ALL, f"{PEOPLE}: but for -incoming; qemu.argv has it too"),
    Tolerated("process/qemu", "version", _VALUE, "only compared with the versions in which a deviation is known"),
    Tolerated("process/restored", "template", _VALUE, PEOPLE),
    Tolerated("process/ready", "boot_s", _OPTIONAL, PEOPLE),
    Tolerated("process/ready", "hello.*", _ALL, f"{PEOPLE}: but for the kernel's arguments"),
    Tolerated("[*]/process/ready", "boot_s", _OPTIONAL, PEOPLE),
    Tolerated("[*]/process/ready", "hello*", _ALL, PEOPLE),
    Tolerated("process/reset", "reason", _VALUE, "redundant with the event RESET of QMP, which is judged"),
    Tolerated("process/stop", "rung", _VALUE, "QEMU that had to be ended by force spoils nothing that was seen before"),
    Tolerated("qmp/event", "*", _ALL, f"{PEOPLE}: but for RESET, which a reboot demands, and nobody else may cause"),
    Tolerated("runner/refused", "after_s", _VALUE, PEOPLE),
    # -- logs ----------------------------------------------------------------------------------------------------
    Tolerated("console/line", "number", "missing", NOT_REQUIRED),
    # -- the guest's announcements -------------------------------------------------------------------------------
    Tolerated("agent/dma", "dma", _ALL, PEOPLE),
    Tolerated("agent/dma", "time_ns", _ALL, f"{PEOPLE}: the guest's own clock"),
    Tolerated("agent/dma", "via", _ALL, PEOPLE),
    Tolerated("agent/dma", "doorbell*", _ALL, f"{PEOPLE}: how the device was told"),
    Tolerated("agent/dma", "registers*", _ALL, f"{PEOPLE}: how the device was told"),
    Tolerated("agent/dma", "rings*", _ALL, f"{PEOPLE}: how the device was told"),
    Tolerated("agent/msi", "time_ns", _ALL, f"{PEOPLE}: the guest's own clock"),
    # -- a stray descriptor -----------------------------------------------------------------------------------------
    Tolerated("observation/stray", "frames.*", _VALUE, "of the frames before, only their number and length count"),
    Tolerated("observation/stray", "writes.*.address", _VALUE, "of a frame before: another place in a mapped page"),
    Tolerated("observation/stray", "ring.tail", _VALUE, "what counts is that the descriptor was ready for the NIC"),
    Tolerated(
        "observation/stray",
        "mappings*",
        _OPTIONAL,
        f"{PEOPLE}: which mapping is the nearest; that none has the address, and which the ring has, is demanded",
    ),
    # -- memory --------------------------------------------------------------------------------------------------
    Tolerated("memory/read", "data", _OPTIONAL, "its first bytes, for people; the digest counts"),
    Tolerated("memory/read", "label", _VALUE, f"{PEOPLE}: place and digest count"),
    Tolerated("memory/read", "size", _VALUE, "the digest is that of all its bytes"),
    Tolerated(
        "memory/read", "*", "drop|value", "how the message of the victim was found out; it is announced", ("forge",)
    ),
    Tolerated(
        "memory/read",
        "*",
        "drop|value",
        "read as the buffer was made, which ends the run if it is not what was asked "
        "for; the step that aims at it reads it again",
        when=lambda e: str(e.data["label"]).endswith("as filled"),
    ),
    # -- announcements that stage bytes for another DMA ----------------------------------------------------------
    Tolerated(
        "agent/dma",
        "*",
        "drop|value",
        "only stages bytes for another DMA, which is announced itself",
        when=lambda e: e.data["purpose"] == "staging",
    ),
    Tolerated(
        "agent/dma", "device", "missing", NOT_REQUIRED, ("provoke", "interrupt", "recording", "invalidate", "msi")
    ),
    Tolerated("agent/dma", "guest", _ALL, "redundant with the device, whose name no other guest's has"),
    Tolerated("agent/msi", "device", "missing", NOT_REQUIRED),
    Tolerated("agent/msi", "guest", _ALL, "redundant with the function's address there and the message"),
    Tolerated("agent/msi", "vector", _ALL, f"{PEOPLE}: the number of the entry that the message was written to"),
    # -- trace -----------------------------------------------------------------------------------------------------
    Tolerated("trace/translated", "lifted", "missing", NOT_REQUIRED),
    Tolerated("trace/watching", "events*", _OPTIONAL, "another event than the judge of this step reads", ("stale",)),
    Tolerated("trace/disabled", "text", _ALL, PEOPLE),
    # -- bare machines -----------------------------------------------------------------------------------------------
    Tolerated("runner/step-*", "marker", _VALUE, "a bare machine has no log that could hold it", _BARE),
    Tolerated("register/fault", "*", _VALUE, BITS),
    Tolerated("register/queue", "fsts", _VALUE, BITS),
    Tolerated("observation/recipe", "model*", _OPTIONAL, ATLAS),
    Tolerated("observation/recipe", "levels", _OPTIONAL, ATLAS),
    Tolerated("observation/recipe", "translation", _OPTIONAL, ATLAS),
    Tolerated("observation/recipe", "bits", _OPTIONAL, ATLAS),
    Tolerated("observation/recipe", "edits*", _ALL, ATLAS),
    Tolerated("observation/recipe", "device", "missing", NOT_REQUIRED),
    Tolerated("observation/recipe", "unbroken", _OPTIONAL, "where the DMA went is held to the recipe and to home"),
    Tolerated("observation/recipe", "index", _VALUE, "of a request that is delivered nothing reports an index"),
    Tolerated("observation/bytes", "payload", _VALUE, "of a refused write nothing shows what it would have written"),
    Tolerated("observation/bytes", "places.*.name", _VALUE, f"{PEOPLE}: but for that of the mapped page"),
    Tolerated("register/queue", "tail", _VALUE, "the head tells what was taken"),
    Tolerated("wire/frame", "size", _OPTIONAL, f"{PEOPLE}: how long the frame was; its bytes count"),
    Tolerated("observation/pending", "entry", _OPTIONAL, f"{PEOPLE}: the entry as it stood"),
    Tolerated("observation/pending", "register", _ALL, f"{PEOPLE}: where the request was written"),
    Tolerated("observation/pending", "vector", _VALUE, "of a refused request no vector shows"),
    Tolerated("observation/alive", "exit_status", _OPTIONAL, "QEMU's words tell how it ended"),
    Tolerated("observation/alive", "failure", _OPTIONAL, PEOPLE),
    Tolerated("observation/alive", "version", _VALUE, "that the register answers counts, not what"),
    Tolerated("observation/alive", "stderr", _VALUE, "only the known words are looked for"),
    Tolerated("process/stop", "exit_status", "value|null", "redundant with what the step saw of its end", ("",)),
    Tolerated("observation/submitted", "descriptor", _OPTIONAL, f"{PEOPLE}: its bytes are read back from memory"),
    Tolerated("observation/submitted", "sha256", "null", "where the queue lies where there is no memory"),
    # -- observations of Linux machines ----------------------------------------------------------------------------
    Tolerated("observation/*", "facts*", _ALL, f"{PEOPLE}: what sysfs says of the device"),
    Tolerated("observation/dma", "at_host", "missing", NOT_REQUIRED),
    Tolerated("observation/dma", "broken*", "missing|null|value", ATLAS),
    Tolerated("observation/dma", "target", _VALUE, f"{PEOPLE}: its name; the address counts"),
    Tolerated("observation/dma", "payload", _VALUE, "of a refused write nothing shows what it would have written"),
    Tolerated("observation/dma", "bystanders", _VALUE, "an empty one; which must be there the steps say"),
    Tolerated("observation/boot-log", "lines", _VALUE, "only that there was a log"),
    *(Tolerated(f"observation/{step}", name, _VALUE, BITS) for step in _INTERRUPTS for name in _UNIT),
    Tolerated("observation/state", "sysfs.*", _ALL, f"{PEOPLE}: but for the groups' types"),
    Tolerated("observation/measured", "exits.*", _ALL, f"{PEOPLE}: exits by kind; a chart has their sum"),
    Tolerated(
        "observation/assignment", "refusal.reason", _VALUE, f"{PEOPLE}: the kernel's log has the words, errno counts"
    ),
    Tolerated("observation/bounces", "bounces.*.bytes", _VALUE, f"{PEOPLE}: how much was copied"),
    Tolerated("observation/dmar", "memory*", _OPTIONAL, "a range of memory in which nothing of the table lies"),
    Tolerated("observation/dmar", "lines*", _OPTIONAL, "a line of the kernel that tells nothing of the table"),
    Tolerated("observation/dmar", "functions*", _OPTIONAL, "a unit that includes all devices needs no scope for one"),
    Tolerated("observation/dmar", "options*", _OPTIONAL, "an option that QEMU was not given has no say"),
    Tolerated("observation/delivery", "counted_*.chip", _VALUE, "only whether it begins with IR- counts"),
    Tolerated("observation/vectors", "*.chip", _VALUE, "only whether it begins with IR- counts"),
    Tolerated("observation/vectors", "guest_*.count", _VALUE, "two that come at once may be counted as one"),
    Tolerated("observation/vectors", "platform_*.count", _VALUE, "two that come at once may be counted as one"),
    Tolerated("observation/vectors", "vectors*", _OPTIONAL, "a vector that was not used"),
    Tolerated("observation/vectors", "guest", _VALUE, f"{PEOPLE}: the step says in which guest"),
    Tolerated("observation/guest", "hello*", _ALL, f"{PEOPLE}: which kernel runs there"),
    Tolerated("observation/guest", "virtualization", _VALUE, PEOPLE),
    Tolerated("observation/assigned", "*", _VALUE, f"{PEOPLE}: the agent gives the device to its driver, or fails"),
    Tolerated("observation/groups", "functions.*", _ALL, f"{PEOPLE}: but for address, group and company"),
    Tolerated("observation/groups", "bridges*", _OPTIONAL, "bridges that stand in no group that the step names"),
    Tolerated("observation/msi", "model", _VALUE, ATLAS),
    Tolerated("observation/msi", "recipe", _VALUE, ATLAS),
    Tolerated("observation/msi", "fault_processing_disabled", _VALUE, ATLAS),
    Tolerated("observation/msi", "index", _VALUE, "of a message that came nothing reports an index"),
    Tolerated("observation/msi", "counters.*.name", _VALUE, f"{PEOPLE}: which line of /proc/interrupts it is"),
    Tolerated("observation/msi", "data", _VALUE, "redundant with the announcement of forged ones; 0 of an edu's"),
    Tolerated("observation/stale", "domain_id", _VALUE, "a global invalidation counts for every domain"),
    Tolerated("observation/stale", "iova", _VALUE, "the page counts"),
    Tolerated("observation/stale", "physical", _VALUE, f"{PEOPLE}: where the bytes were laid"),
    Tolerated("observation/stale", "reason", _VALUE, "that the walk refuses counts, not why"),
    Tolerated("observation/stale", "secret", _VALUE, "of a refused read nothing shows what it would have read"),
    Tolerated("observation/stale", "frames*", _OPTIONAL, "a refused read sends nothing, or a frame of zeros"),
    Tolerated("observation/stale", "ended", _VALUE, "it may not be later than when it was recorded"),
    Tolerated("observation/traffic", "guest.elapsed_ns", _OPTIONAL, f"{PEOPLE}: how long it took"),
    Tolerated("observation/traffic", "guest.netdev", _ALL, PEOPLE),
    Tolerated("observation/traffic", "guest.received.*", _ALL, f"{PEOPLE}: but for frames and digest"),
    Tolerated("observation/traffic", "guest.sent*", _ALL, "what came out at the host's end counts"),
    Tolerated("observation/admission", "refusal.errno", _VALUE, f"{PEOPLE}: VFIO's own errno is that of the status"),
    Tolerated("observation/admission", "addresses.*", _VALUE, f"{PEOPLE}: names of members that hold nobody back"),
    Tolerated("runner/device", "*", "drop|value", "told again when the device is plugged in again", ("replug",)),
    Tolerated("observation/admission", "addresses.*", "missing", f"{PEOPLE}: names of members that hold nobody back"),
    Tolerated("observation/assignment", "device", _VALUE, f"{PEOPLE}: the step says which"),
    Tolerated("observation/assignment", "gsts", _VALUE, BITS),
    Tolerated("observation/ats", "ecap", _VALUE, BITS),
    Tolerated("observation/state", "gsts", _VALUE, BITS),
    Tolerated("observation/beyond", "*", _VALUE, "that the walk refuses counts, not why nor what it was asked last"),
    Tolerated("observation/boot-log", "logged.*", _VALUE, "the words that the step names count"),
    Tolerated("observation/bounces", "*", _VALUE, "whether any buffer was bounced counts, not how many or where"),
    Tolerated("observation/dmar", "options.driver", "null|type", f"{PEOPLE}: what QEMU calls the unit"),
    Tolerated("observation/killed", "before", _VALUE, "that it wrote at all counts"),
    Tolerated("memory/read", "sha256", _VALUE, "whether the word stands there is recorded beside it", ("kill",)),
    Tolerated("observation/measured", "*", _OPTIONAL, "a characterisation, which no outcome depends on"),
    Tolerated("observation/traffic", "load.size", _VALUE, "frames are compared by digest", ("compare",)),
    Tolerated("observation/translated", "guest_physical", _VALUE, "the page counts"),
    Tolerated("observation/translated", "page", "value|null", f"{PEOPLE}: how large it is"),
    Tolerated("observation/withdrawn", "driver", _VALUE, PEOPLE),
    Tolerated("runner/device", "*", "drop|value", "told again when the guest is gone", ("withdraw", "kill")),
    Tolerated("observation/unmapped", "a*", _VALUE, "redundant with the call itself, the narrower counts"),
    Tolerated("observation/unmapped", "iova", _VALUE, "redundant with the call itself"),
)
