"""The host's end of the guest agent's protocol: one JSON object per line, one call at a time.

    request       {"id": 7, "op": "map", "args": {...}}
    announcement  {"event": "dma", ...}                     any number, before the answer of the call that caused them
    answer        {"id": 7, "ok": {...}}
                  {"id": 7, "error": {"reason": "...", "errno": 22}}

An answer that is not one of these or has not the shape that its operation has (`harness.answers`), or the end of the
stream, is an AgentError, and one beyond a bound of `harness.bounds` a BoundExceeded: what the guest says can then no
longer be trusted to belong to what it was asked.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from harness import bounds
from harness.answers import read_message, require_answer, require_event
from harness.errors import AgentError, BoundExceeded, HarnessError, OperationRefused
from harness.waiting import Abort, Deadline


class LineChannel(Protocol):
    """What the link needs of a channel; `harness.ssh.Channel` has it."""

    def send_line(self, line: str) -> None:
        """Send one line."""

    def read_line(self, deadline: Deadline, abort: Sequence[Abort] = ()) -> str | None:
        """The next line without its end, None at the end of the stream."""


class AgentLink:
    """Calls operations of the agent at the other end of `channel`."""

    def __init__(
        self,
        channel: LineChannel,
        *,
        on_event: Callable[[dict[str, Any]], None],
        on_call: Callable[[dict[str, Any]], None] = lambda _: None,
        last_words: Callable[[], str] = lambda: "",
        abort: Sequence[Abort] = (),
    ) -> None:
        """`on_event` gets each announcement, in order, before the call that caused it returns or raises.

        `on_call` gets a record of each ended call: `op`, `args`, `duration_s`, and `ok` or `error`. `last_words` is
        asked what an agent said on its stderr before it ended.
        """
        self._channel = channel
        self._on_event = on_event
        self._on_call = on_call
        self._last_words = last_words
        self._abort = tuple(abort)
        self._last_id = 0

    def call(self, op: str, /, *, within_s: float = 15.0, **args: Any) -> dict[str, Any]:
        """The `ok` object of operation `op`.

        Raises OperationRefused with the agent's reason and errno, AgentError if the protocol is broken, WaitTimeout
        after `within_s` (scaled), or the error of an abort. After a WaitTimeout the link stays usable: a late answer
        is recognized by its id and dropped.
        """
        deadline = Deadline.after(within_s)
        record: dict[str, Any] = {"op": op, "args": args}
        try:
            record["ok"] = self._exchange(op, args, deadline)
            return dict(record["ok"])
        except HarnessError as error:
            record["error"] = error.message
            raise
        finally:
            self._on_call({**record, "duration_s": round(deadline.elapsed_s, 6)})

    def tell(self, op: str, /, **args: Any) -> None:
        """Ask for operation `op`, which ends the guest: nobody waits for an answer, and nothing else is asked here."""
        self._last_id += 1
        self._channel.send_line(json.dumps({"id": self._last_id, "op": op, "args": args}))
        self._on_call({"op": op, "args": args, "told": True})

    def _exchange(self, op: str, args: dict[str, Any], deadline: Deadline) -> dict[str, Any]:
        self._last_id += 1
        self._channel.send_line(json.dumps({"id": self._last_id, "op": op, "args": args}))
        where, events, heard = f"the agent, during '{op}'", 0, 0
        while True:
            line = self._next_line(op, deadline)
            heard += len(line)
            if heard > bounds.CALL_BYTES:
                raise BoundExceeded("the agent", f"answer to '{op}'", bound=bounds.CALL_BYTES, unit="characters")
            message = read_message(line, where)
            if "event" in message:
                events += 1
                if events > bounds.EVENTS_PER_CALL:
                    raise BoundExceeded("the agent", f"'{op}'", bound=bounds.EVENTS_PER_CALL, unit="announcements")
                require_event(message, where)
                self._on_event(message)
            elif message.get("id") == self._last_id:
                result = _result(op, message)
                require_answer(op, result, where)
                return result
            elif not self._is_late(message):
                raise AgentError(f"the agent answered '{op}' with something else: {json.dumps(message)[:200]}")

    def _next_line(self, op: str, deadline: Deadline) -> str:
        line = self._channel.read_line(deadline, self._abort)
        if line is None:
            said = ""
            with contextlib.suppress(HarnessError):  # the connection may have gone with it
                said = self._last_words().strip()
            raise AgentError(f"the agent ended during '{op}'" + (f": {said}" if said else ""))
        return line

    def _is_late(self, message: dict[str, Any]) -> bool:
        """Whether `message` answers an earlier call that ran into its deadline."""
        number = message.get("id")
        return isinstance(number, int) and 0 < number < self._last_id and bool({"ok", "error"} & message.keys())


def _result(op: str, message: dict[str, Any]) -> dict[str, Any]:
    match message:
        case {"ok": dict(result)}:
            return result
        case {"error": {"reason": str(reason), **rest}}:
            errno = rest.get("errno")
            raise OperationRefused(op, reason=reason, errno=errno if isinstance(errno, int) else 0)
    raise AgentError(f"the agent's answer to '{op}' has neither 'ok' nor 'error': {json.dumps(message)[:200]}")
