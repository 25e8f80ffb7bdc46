"""What is known of KVM: whether the kernel of an image was seen to boot with it, kept until the host boots anew."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HarnessError, LaunchError, MachineHalted, StorageError
from harness.evidence import write_json
from harness.host.accelerator import KvmFinding
from harness.storage import writing

#: What is asked: QEMU, kernel, boot of the host, and whatever else makes it another question.
Question = Sequence[str | int]

#: Where QEMU goes on with the registers (x86_cpu_dump_state in target/i386/cpu-dump.c), its words on KVM are over.
_REGISTERS = re.compile(r"^(RAX|EAX)=")


@dataclass(frozen=True, slots=True)
class KvmFindings:
    """The findings kept in `directory`, each with the console and stderr of the boot that it rests on."""

    directory: Path

    def recalled(self, question: Question) -> KvmFinding | None:
        """Give what was found, None if it was not asked yet or cannot be read."""
        try:
            told = json.loads(self._file(question).read_text(encoding="utf-8"))
            return KvmFinding(told["usable"], told["reason"]) if told["asked"] == list(question) else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def keep(self, question: Question, finding: KvmFinding) -> None:
        """Keep what was found; in a cache that cannot be written nothing is kept, and it is asked anew each time."""
        with contextlib.suppress(OSError, StorageError):
            file = self._file(question)
            file.parent.mkdir(parents=True, exist_ok=True)
            write_json(file, {"asked": list(question), "usable": finding.usable, "reason": finding.reason})

    def evidence(self, question: Question) -> Path:
        """Give an empty directory for the files of the boot; StorageError where it cannot be made."""
        place = self._file(question).with_suffix("")
        shutil.rmtree(place, ignore_errors=True)
        with writing("the boot that asks for KVM", place, alone=True):
            place.mkdir(parents=True)
        return place

    def _file(self, question: Question) -> Path:
        return self.directory / f"{hashlib.sha256(json.dumps(list(question)).encode()).hexdigest()[:16]}.json"


def kvm_words(error: HarnessError) -> str:
    """Say in a line why a guest did not run: in KVM's own words where QEMU wrote them to its stderr.

    Those are "KVM internal error. Suberror: 1" and what follows it up to the registers (kvm_handle_internal_error in
    accel/kvm/kvm-all.c), or the last line of a QEMU that ended.
    """
    said = error.said if isinstance(error, MachineHalted) else error.stderr if isinstance(error, LaunchError) else ""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    first = next((index for index, line in enumerate(lines) if "KVM" in line or "kvm" in line), None)
    if first is None:
        return error.message
    words = []
    for line in lines[first : first + 3]:
        if _REGISTERS.match(line):
            break
        words.append(line)
    return ", ".join(words)


def is_kvms(error: HarnessError) -> bool:
    """Tell whether KVM broke while a guest ran: QEMU stands in `internal-error`, or ended with a word on KVM."""
    if isinstance(error, MachineHalted):
        return error.state == "internal-error"
    return isinstance(error, LaunchError) and "KVM" in error.stderr
