"""Announcing DMA: the harness hears of each transfer before the device is told to start it."""

from __future__ import annotations

import time
from typing import Any

from protocol import Emit

TO_MEMORY = "to-memory"
FROM_MEMORY = "from-memory"


class Announcer:
    """Tells of the DMAs of one device, numbering them from 1."""

    def __init__(self, emit: Emit, *, device: str, bdf: str, via: str) -> None:
        self._emit = emit
        self._who = {"device": device, "bdf": bdf, "via": via}
        self._number = 0

    def started(
        self,
        *,
        direction: str,
        address: int,
        length: int,
        purpose: str,
        registers: dict[str, Any],
        doorbell: dict[str, int],
        rings: list[dict[str, Any]] | None = None,
    ) -> dict[str, Any]:
        """Announce a transfer that the write of `doorbell` will start; hand the answer to `ended`.

        `address` is the bus address, `registers` what the device holds, read back from it, `doorbell` the register
        offset and value that come next. `rings` names memory that the device touches besides, to fetch and complete
        its descriptors.
        """
        self._number += 1
        announced = {
            **self._who,
            "dma": self._number,
            "direction": direction,
            "address": address,
            "length": length,
            "purpose": purpose,
            "registers": registers,
            "doorbell": doorbell,
            "rings": rings or [],
        }
        self._emit({"event": "dma", **announced, "time_ns": time.monotonic_ns()})
        return announced

    def ended(self, announced: dict[str, Any], *, status: str, registers: dict[str, Any]) -> None:
        """Announce that the device is through with a transfer, whether or not memory let it."""
        closing = {**announced, "registers": registers, "status": status}
        self._emit({"event": "dma-done", **closing, "time_ns": time.monotonic_ns()})
