"""How much a guest may say, and what else is read from where the harness is attacked; each with its reason.

A guest under test is told to attack, and one that was taken over may answer as it likes. Whatever exceeds a bound is a
BoundExceeded or AgentError, so the variant is an ERROR: what such a guest says is no evidence. The bounds are many
times what the scenarios need (the greatest seen is named) and far below what a host has.
"""

from __future__ import annotations

#: Bytes of one line of the guest agent, of a program on a lab host, or of QEMU's test channel. The longest are the
#: kernel's whole log and 64 KiB of memory in hexadecimal: some 300 KiB.
LINE_BYTES = 4 << 20

#: Levels of lists and objects in an answer, its own included; the agent's have six.
NESTING = 24

#: Values in an answer, all levels taken together: 4 MiB of empty lists would take some 100 MiB here.
VALUES = 400_000

#: Greatest magnitude of an integer: addresses and counters have 64 bits.
INTEGER_BITS = 64

#: Announcements of one call; `vectors` and `storm` have two for each DMA.
EVENTS_PER_CALL = 10_000

#: Bytes of all lines that are read for one call: announcements, late answers and the answer.
CALL_BYTES = 16 << 20

#: Bytes of a journal. A storm of a thousand DMAs takes about 2 MiB.
JOURNAL_BYTES = 64 << 20

#: Bytes of each file that QEMU writes itself: console, trace, stderr. The kernel refuses each byte beyond
#: (RLIMIT_FSIZE), also between two looks of the harness (`harness.machine.outgrown`).
#: A multiple of 512; the devices' state of a template (below 1
#: MiB) and reads of memory from outside (64 MiB at most) are such files, too. Memory that is mapped is not counted.
QEMU_FILE_BYTES = 128 << 20

#: Bytes of stderr, or of all that a command run over SSH says: the longest is the trace of a nested QEMU.
STREAM_BYTES = 64 << 20

#: Bytes that a guest's SSH server may say before its first packet is whole; RFC 4253 bounds a packet to 35000.
GREETING_BYTES = 64 << 10

#: Bytes of one frame of the keeper's protocol: memory in hexadecimal, 64 MiB at most.
FRAME_BYTES = 132 << 20

#: Ethernet frames that are looked at while one is waited for, or taken off a wire at once; an exchange has 1,000.
WIRE_FRAMES = 200_000

#: Bytes of these frames.
WIRE_BYTES = 64 << 20
