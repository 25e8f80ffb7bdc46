"""The payload stream, as docs/agent-protocol.md defines it, and what a receiver makes of frames."""

import hashlib
import struct

import traffic


def frame(payload: bytes) -> bytes:
    return b"\xff" * 6 + b"\x02\0\0\0\0\1" + b"\x88\xb5" + payload


def test_the_stream_is_sha256_in_counter_mode():
    seed = b"\xaa"
    first, second = (hashlib.sha256(seed + struct.pack(">Q", k)).digest() for k in (0, 1))
    assert traffic.stream(seed, 40) == first + second[:8]


def test_frames_carry_their_number_and_their_slice_of_the_stream():
    parts = traffic.payloads(b"s", frames=3, size=46)
    assert [part[:4] for part in parts] == [b"\0\0\0\0", b"\0\0\0\1", b"\0\0\0\2"]
    assert b"".join(part[4:] for part in parts) == traffic.stream(b"s", 3 * 42)


def test_the_hash_of_a_complete_reception_does_not_depend_on_the_order():
    parts = traffic.payloads(b"s", frames=4, size=60)
    reception = traffic.Reception(frames=4, size=60)
    for part in reversed(parts):
        reception.take(frame(part))
    assert reception.complete
    assert reception.summary()["sha256"] == hashlib.sha256(traffic.stream(b"s", 4 * 56)).hexdigest()


def test_a_flipped_bit_changes_the_hash():
    parts = traffic.payloads(b"s", frames=2, size=60)
    reception = traffic.Reception(frames=2, size=60)
    reception.take(frame(parts[0]))
    reception.take(frame(parts[1][:-1] + bytes([parts[1][-1] ^ 1])))
    assert reception.summary()["sha256"] != traffic.digest(parts)


def test_missing_duplicate_and_foreign_frames_are_told_apart():
    parts = traffic.payloads(b"s", frames=3, size=60)
    reception = traffic.Reception(frames=3, size=60)
    for payload in (parts[0], parts[0], parts[2], b"short", struct.pack(">I", 3) + bytes(56)):
        reception.take(frame(payload))
    summary = reception.summary()
    assert not reception.complete
    assert (summary["frames"], summary["missing"], summary["first_missing"]) == (2, 1, [1])
    assert (summary["duplicates"], summary["foreign"]) == (1, 2)
