"""Named open devices and the DMAs they are told to make."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import pci
from buffers import BufferTable, Mailbox
from dma import Announcer
from domains import DomainTable
from e1000e import E1000E
from edu import Edu
from function import Function, open_raw, open_vfio
from igb import IGB
from igb_vf import IGB_VF, VirtualNic
from messages import InterruptCounter
from nic import Model, Nic
from protocol import Emit, Operation, Refused, from_hex
from waiting import poll

_EDU_IDENTIFICATION = 0x123411E8
_NICS: dict[str, Model] = {model.name: model for model in (E1000E, IGB, IGB_VF)}
_PURPOSES = ("attack", "staging", "control")


class OpenDevice(NamedTuple):
    """A device in use: which function it is, and what drives it."""

    bdf: str
    model: str
    function: Function
    engine: Edu | Nic
    interrupts: InterruptCounter


class DeviceTable:
    """Operations `device_*`. Every DMA is announced before it starts (see `dma`)."""

    def __init__(self, buffers: BufferTable, domains: DomainTable, emit: Emit) -> None:
        self._buffers = buffers
        self._domains = domains
        self._emit = emit
        self._open: dict[str, OpenDevice] = {}

    def operations(self) -> dict[str, Operation]:
        """Operations by name."""
        return {
            "device_open": self.device_open,
            "device_close": self.device_close,
            "device_load": self.device_load,
            "device_write": self.device_write,
            "device_read": self.device_read,
            "device_store": self.device_store,
            "device_start_write": self.device_start_write,
            "device_arm_receive": self.device_arm_receive,
            "device_arm_ring": self.device_arm_ring,
            "device_received": self.device_received,
            "device_arm_loop": self.device_arm_loop,
            "device_send": self.device_send,
            "device_msi_enable": self.device_msi_enable,
            "device_msi_raise": self.device_msi_raise,
            "device_msi_count": self.device_msi_count,
        }

    def open_on(self, bdf: str) -> str | None:
        """The name of the device open at `bdf`."""
        return next((name for name, opened in self._open.items() if opened.bdf == bdf), None)

    def device_open(
        self, *, device: str, bdf: str, model: str, via: str, mailbox: dict[str, Any], medium: str = "wire"
    ) -> dict[str, Any]:
        """Open `bdf` as a device of `model` `via` its domain's VFIO or raw, bus mastering on.

        The `medium` of a NIC is its wire, or `loopback`: it receives what it sends.

        `mailbox` is `{"buffer": name, "iova": number or null}`: its first page is the device's staging area, reached
        by it under `iova`, or under its guest-physical address.
        """
        if device in self._open or self.open_on(bdf) is not None:
            raise Refused(f"device {device!r} or function {bdf} is open already")
        if medium not in ("wire", "loopback"):
            raise Refused(f"medium must be wire or loopback, not {medium!r}")
        _check_model(bdf, model)
        page = self._mailbox(mailbox)
        function = self._open_function(bdf, via)
        try:
            announcer = Announcer(self._emit, device=device, bdf=bdf, via=via)
            engine: Edu | Nic
            if model == IGB_VF.name:
                engine = VirtualNic(IGB_VF, function, page, announcer)
            elif model in _NICS:
                engine = Nic(_NICS[model], function, page, announcer, loopback=medium == "loopback")
            else:
                engine = Edu(function, page, announcer)
        except BaseException:
            function.close()
            raise
        self._open[device] = OpenDevice(bdf, model, function, engine, InterruptCounter(function))
        return {"bdf": bdf, "model": model, "via": via, "mailbox": page.bus_address, "device": engine.describe()}

    def device_close(self, *, device: str) -> dict[str, Any]:
        """Quiesce the device, take bus mastering from it and let go of it."""
        opened = self._find(device)
        del self._open[device]
        _release(opened)
        return {}

    def device_load(
        self,
        *,
        device: str,
        hex: str,  # noqa: A002 - the protocol's word
        device_offset: int = 0,
        purpose: str = "staging",
    ) -> dict[str, Any]:
        """Bring bytes into edu's memory, by DMA from the mailbox."""
        return self._edu(device).load(from_hex(hex), device_offset=device_offset, purpose=_checked(purpose))

    def device_write(
        self, *, device: str, address: int, length: int, device_offset: int = 0, purpose: str = "attack"
    ) -> dict[str, Any]:
        """One DMA from edu's memory to bus address `address`; that it ended is no evidence that it landed."""
        engine = self._edu(device)
        return engine.write(address, length, device_offset=device_offset, purpose=_checked(purpose))

    def device_read(
        self, *, device: str, address: int, length: int, device_offset: int = 0, purpose: str = "attack"
    ) -> dict[str, Any]:
        """One DMA from bus address `address`: into edu's memory, or of a NIC into a frame on its wire."""
        engine = self._find(device).engine
        if isinstance(engine, Nic):
            if device_offset:
                raise Refused("a NIC has no device_offset")
            return engine.read(address, length, purpose=_checked(purpose))
        return engine.read(address, length, device_offset=device_offset, purpose=_checked(purpose))

    def device_store(
        self, *, device: str, length: int, device_offset: int = 0, purpose: str = "staging"
    ) -> dict[str, Any]:
        """Bring edu's memory into the mailbox by DMA, and tell what the guest then sees there."""
        return self._edu(device).store(length, device_offset=device_offset, purpose=_checked(purpose))

    def device_arm_receive(self, *, device: str, address: int, purpose: str = "attack") -> dict[str, Any]:
        """Let a NIC write the next frame from its wire to bus address `address`."""
        return self._nic(device).arm_receive(address, purpose=_checked(purpose))

    def device_arm_loop(self, *, device: str) -> dict[str, Any]:
        """Let a NIC with loopback receive what it sends next into the mailbox."""
        return self._nic(device).arm_loop()

    def device_send(self, *, device: str, hex: str) -> dict[str, Any]:  # noqa: A002 - the protocol's word
        """Let a NIC send one whole frame, which is put into the mailbox for that."""
        return self._nic(device).send(from_hex(hex))

    def device_start_write(self, *, device: str, address: int, length: int, purpose: str = "attack") -> dict[str, Any]:
        """Begin one DMA from edu's memory to bus address `address`, and do not wait for its end."""
        return self._edu(device).start_write(address, length, purpose=_checked(purpose))

    def device_arm_ring(
        self, *, device: str, address: int, buffer: str, iova: int, count: int, offset: int = 0, purpose: str = "attack"
    ) -> dict[str, Any]:
        """Let a NIC write each of the next `count` frames from its wire to bus address `address`.

        Its descriptors lie at `offset` of a buffer that it reaches under `iova`. `count` is one less than a multiple of
        eight.
        """
        ring = self._buffers.find(buffer)
        return self._nic(device).arm_ring(address, ring, offset, iova, count, purpose=_checked(purpose))

    def device_received(self, *, device: str, timeout_s: float = 0) -> dict[str, Any]:
        """Whether a frame has used the armed descriptor; the device says so even if memory refused the frame."""
        return self._nic(device).received(timeout_s)

    def device_msi_enable(self, *, device: str) -> dict[str, Any]:
        """Let the device send interrupt messages and count them; `count` is how many have come so far."""
        counter = self._find(device).interrupts
        counter.enable()
        return {"count": counter.count()}

    def device_msi_raise(self, *, device: str, purpose: str = "attack") -> dict[str, Any]:
        """Have edu send its interrupt message, announced before; `device_msi_count` tells whether it came."""
        opened = self._find(device)
        announced = {"event": "msi", "device": device, "bdf": opened.bdf, "purpose": _checked(purpose)}
        self._emit({**announced, "time_ns": time.monotonic_ns()})
        self._edu(device).interrupt()
        return {}

    def device_msi_count(self, *, device: str, above: int, timeout_s: float = 0) -> dict[str, Any]:
        """How many interrupts of the device have come, once those are more than `above` or the time has passed."""
        counter = self._find(device).interrupts
        poll(lambda: counter.count() > above, timeout_s)
        return {"count": counter.count()}

    def close_all(self) -> None:
        """Quiesce and release every device, one's failure not keeping the others from it."""
        while self._open:
            _, opened = self._open.popitem()
            try:
                _release(opened)
            except (OSError, Refused):
                continue  # the function may have been unplugged; there is nobody left to tell

    def _find(self, name: str) -> OpenDevice:
        if name not in self._open:
            raise Refused(f"no open device {name!r}; open: {', '.join(self._open) or 'none'}")
        return self._open[name]

    def _edu(self, name: str) -> Edu:
        engine = self._find(name).engine
        if not isinstance(engine, Edu):
            raise Refused(f"{name} is no edu; a NIC writes by device_arm_receive and reads by device_read")
        return engine

    def _nic(self, name: str) -> Nic:
        engine = self._find(name).engine
        if not isinstance(engine, Nic):
            raise Refused(f"{name} is no NIC")
        return engine

    def _mailbox(self, wanted: dict[str, Any]) -> Mailbox:
        name, iova = wanted.get("buffer"), wanted.get("iova")
        if not isinstance(name, str) or not isinstance(iova, int | None) or set(wanted) - {"buffer", "iova"}:
            raise Refused('mailbox must be {"buffer": name, "iova": number or null}')
        return Mailbox(self._buffers.find(name), iova)

    def _open_function(self, bdf: str, via: str) -> Function:
        if via == "vfio":
            return open_vfio(bdf, self._domains.open_device(bdf))
        if via == "raw":
            return open_raw(bdf)
        raise Refused(f"via must be vfio or raw, not {via!r}")


def _check_model(bdf: str, model: str) -> None:
    known = {"edu": (_EDU_IDENTIFICATION,), **{name: nic.identifications for name, nic in _NICS.items()}}
    if model not in known:
        raise Refused(f"unknown model {model!r}; known: {', '.join(known)}")
    described = pci.describe(bdf)
    found = described["vendor"] << 16 | described["device"]
    if found not in known[model]:
        raise Refused(f"{bdf} is {found >> 16:04x}:{found & 0xFFFF:04x}, no {model}")


def _checked(purpose: str) -> str:
    if purpose not in _PURPOSES:
        raise Refused(f"purpose must be one of {', '.join(_PURPOSES)}, not {purpose!r}")
    return purpose


def _release(opened: OpenDevice) -> None:
    try:
        opened.engine.quiesce()
    finally:
        opened.function.close()
        opened.interrupts.close()
