"""The lines with which Linux says that it cannot be relied on any more."""

from __future__ import annotations

import re

#: The named group is the title. Lockups and RCU stalls are left out on purpose: under TCG on a busy host they are the
#: host's doing, and the guest recovers.
#: Sources: kernel/panic.c panic(), arch/x86/kernel/dumpstack.c __die_header(), arch/x86/mm/fault.c show_fault_oops(),
#: arch/x86/kernel/traps.c exc_general_protection(), include/asm-generic/bug.h BUG().
_TITLES = tuple(
    re.compile(pattern)
    for pattern in (
        r"(?P<title>Kernel panic - not syncing: .*)",
        r"(?P<title>BUG: (?!soft lockup|workqueue lockup).*)",
        r"(?P<title>kernel BUG at .*)",
        r"(?P<title>Oops: .*)",
        r"(?P<title>general protection fault, .*)",
        r"(?P<title>double fault: .*)",
        r"(?P<title>Internal error: .*)",
    )
)


def panic_title(line: str) -> str | None:
    """Give the title of the panic or oops that `line` announces, None for any other line."""
    for pattern in _TITLES:
        if found := pattern.search(line):
            return found["title"].strip()
    return None
