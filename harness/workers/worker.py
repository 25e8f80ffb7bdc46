"""The main function of a worker: it runs the plans that it is given, one after the other."""

from __future__ import annotations

import signal
import sys
import threading
from contextlib import suppress
from multiprocessing.connection import Connection

from harness import suite
from harness.errors import StorageError
from harness.plan import Plan
from harness.process import heed_every_interrupt
from harness.uninterrupted import interrupt
from harness.workers.messages import Job, Said


def main() -> None:
    """Work for the process at the other end of the socket whose descriptor is the first argument.

    The run sends SIGINT to have the machine stopped, as Ctrl-C does in a run without workers.
    """
    with suppress(KeyboardInterrupt):
        heed_every_interrupt()
        signal.signal(signal.SIGINT, interrupt)
        with Connection(int(sys.argv[1])) as link:
            _serve(link)


def _serve(link: Connection) -> None:
    sending = threading.Lock()

    def tell(message: object) -> None:
        with sending:
            link.send(message)

    with suppress(EOFError):
        job: Job = link.recv()
        host = job.host.telling(lambda text: tell(Said(text)))
        while True:
            plan: Plan = link.recv()
            try:
                tell(suite.run_one(job.run, plan, host, prove=job.prove, watch=tell))
            except StorageError as error:
                tell(error)
