"""A virtual function of the 82576 as QEMU's `igbvf` models it: a window onto one pool of its physical function.

Registers are those of hw/net/igbvf.c (vf_to_pf_addr). Receiver, transmitter and link are the physical function's, whose
driver must have them on. After each reset the function moves nothing until that driver has answered its reset message
(igb_core_vf_reset in hw/net/igb_core.c clears VFRE and VFTE; igb_vf_reset_msg in Linux' igb_main.c sets them).
"""

from __future__ import annotations

from igb import IGB
from nic import Nic
from protocol import Refused
from waiting import wait_for

IGB_VF = IGB._replace(
    name="igb-vf",
    identifications=(0x808610CA,),
    interrupt_mask=(0x1528,),
    transmit=0x3800,
    receive=0x2800,
    receive_setup=((0x280C, dict(IGB.receive_setup)[0xC00C]),),
)

_CTRL, _RESET = 0x0000, 1 << 26
#: The mailbox to the physical function, and its memory (82576 datasheet 8.14.3; Linux' igbvf/mbx.h).
_MAILBOX, _MEMORY = 0x0C40, 0x0800
_REQUEST, _ACKNOWLEDGE, _TAKE, _ANSWERED, _PF_RESETTING = 1 << 0, 1 << 1, 1 << 2, 1 << 4, 1 << 6
_VF_RESET = 0x01
_MESSAGE_OK, _MESSAGE_REFUSED = 1 << 31, 1 << 30
_ANSWER_S = 10.0


class VirtualNic(Nic):
    """A NIC of which only the rings are its own."""

    def _reset(self) -> None:
        function = self._function
        wait_for("the physical function to be up", lambda: not function.read32(_MAILBOX) & _PF_RESETTING, _ANSWER_S)
        function.write32(_CTRL, function.read32(_CTRL) | _RESET)
        self._mask_interrupts()
        self._take_mailbox()
        function.write32(_MEMORY, _VF_RESET)
        function.write32(_MAILBOX, _REQUEST)
        wait_for("the physical function's answer", lambda: function.read32(_MAILBOX) & _ANSWERED, _ANSWER_S)
        self._take_mailbox()
        answer = function.read32(_MEMORY)
        function.write32(_MAILBOX, _ACKNOWLEDGE)
        if answer & 0xFFFF != _VF_RESET or not answer & (_MESSAGE_OK | _MESSAGE_REFUSED):
            raise Refused(f"the physical function answered the reset with {answer:#x}")
        wait_for("the NIC's link", self._link, _ANSWER_S)

    def _take_mailbox(self) -> None:
        function = self._function

        def taken() -> bool:
            function.write32(_MAILBOX, _TAKE)
            return bool(function.read32(_MAILBOX) & _TAKE)

        wait_for("the mailbox", taken, _ANSWER_S)

    def quiesce(self) -> None:
        """Stop both rings."""
        for queue in (self._model.receive, self._model.transmit):
            self._function.write32(queue + 0x28, 0)

    def _switch_receiver(self, *, on: bool) -> None:
        """Leave the physical function's receiver as it is."""

    def _switch_transmitter(self, *, on: bool) -> None:
        """Leave the physical function's transmitter as it is."""
