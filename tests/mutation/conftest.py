"""The host whose QEMU runs the bare machines."""

from tests.bare.conftest import host

__all__ = ["host"]
