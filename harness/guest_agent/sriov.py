"""Virtual functions (SR-IOV): as many as are asked for, each with an address of its own, bound to no driver."""

from __future__ import annotations

import subprocess
from typing import Any

from pci import link_name, netdev_of, present
from protocol import Operation, Refused
from system import read_text, write_text
from traffic import bring_up
from waiting import wait_for

_CARRIER_S = 20.0
_APPEAR_S = 10.0


class VirtualFunctions:
    """Operation `sriov_enable`."""

    def operations(self) -> dict[str, Operation]:
        """Operations by name."""
        return {"sriov_enable": self.sriov_enable}

    def sriov_enable(self, *, bdf: str, macs: list[str]) -> dict[str, Any]:
        """Give the NIC `bdf`, under its kernel driver, one virtual function for each of `macs`; answers their `bdfs`.

        The order is that in which a driver of a function finds it usable at once, with the address that it was given,
        on Linux 6.1 and 6.12. The NIC is up first and stays so: only then does it answer the functions' mailboxes
        (igb_ndo_open), and the functions take no address that is set after their driver has asked for it.
        """
        path = present(bdf)
        name = netdev_of(bdf)
        if name is None:
            raise Refused(f"{bdf} has no network interface")
        total = int(read_text(f"{path}/sriov_totalvfs"))
        if not 0 < len(macs) <= total:
            raise Refused(f"{bdf} has {total} virtual functions, not {len(macs)}")
        bring_up(name, _CARRIER_S)
        write_text(f"{path}/sriov_drivers_autoprobe", "0")
        write_text(f"{path}/sriov_numvfs", str(len(macs)))
        wait_for(f"the functions of {bdf}", lambda: _functions(path, len(macs)), _APPEAR_S)
        for number, mac in enumerate(macs):
            argv = ["ip", "link", "set", name, "vf", str(number), "mac", mac]
            done = subprocess.run(argv, capture_output=True, text=True, check=False)
            if done.returncode:
                raise Refused(f"{' '.join(argv)}: {done.stderr.strip()}")
        write_text(f"{path}/sriov_drivers_autoprobe", "1")
        # The driver has reset itself to make room for them.
        bring_up(name, _CARRIER_S)
        return {"bdfs": _functions(path, len(macs)), "netdev": name}


def _functions(path: str, count: int) -> list[str]:
    """The addresses of `count` virtual functions, in order; none of them while one is missing."""
    found = [link_name(f"{path}/virtfn{number}") for number in range(count)]
    return [name for name in found if name] if all(found) else []
