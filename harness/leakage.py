"""Whether a secret got out, whole or in part."""

from __future__ import annotations


def leaks(out: bytes, secret: bytes) -> bool:
    """Whether any part of the secret came out: one of its aligned 32-bit words in place, or 8 of its bytes anywhere."""
    words = any(out[i : i + 4] == secret[i : i + 4] for i in range(0, len(secret) - 3, 4))
    return words or any(secret[i : i + 8] in out for i in range(len(secret) - 7))
