"""SSH to the guest, and to other hosts (`connected`); the only package that knows paramiko.

Towards a guest, trust is made, not skipped: key pairs are made in memory, the client's for one start of a machine and
the host's for one boot of a guest, which gets its key before and keeps it where it is saved and restored. A connection
is only used once the guest has proven to hold that key.

Commands on one connection are started one after the other, and a short one has told its exit status before the next
channel is opened. Dropbear before 2024.86 needs that: when it reaps a child while another channel is open whose command
was not requested yet, its check_close() (common-channel.c) takes that channel for a finished one and closes it, and the
request that then arrives fails an assertion that ends the whole connection ("Channel closed." in paramiko; fixed by
dropbear's commit 71521d1b). A child's exit status is only sent after it was reaped, so waiting for it rules that out.
"""

from __future__ import annotations

from harness.ssh.address import SshAddress
from harness.ssh.channel import Channel, Completed, Terminal
from harness.ssh.connection import Ssh
from harness.ssh.keys import KeyPair
from harness.ssh.line import SshLine
from harness.ssh.remote import connected

__all__ = ["Channel", "Completed", "KeyPair", "Ssh", "SshAddress", "SshLine", "Terminal", "connected"]
