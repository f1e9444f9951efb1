"""Frames over a link: a worker or keeper of the agent, as the engine's workers are spoken to."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from hwprof.devices.agent.conditions import COOL_LIMIT_S
from hwprof.devices.remote.transport import LinkLostError, Transport
from hwprof.measure import wire
from hwprof.measure.framing import CONTROL_MAGIC, pack, write_all
from hwprof.measure.process import (
    CLOSE_TIMEOUT_S,
    LINK,
    Worker,
    WorkerFault,
    last_words,
    process_fault,
)

_KILLED_BY_SIGNAL = 128

Translate = Callable[[str, dict[str, Any]], dict[str, Any]]
"""Given an operation and its fields, returns the fields as the device understands them."""


def unchanged(op: str, fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a request as they are."""
    return fields


class RemoteSession(Worker):
    """One session of the agent. Parking is a message to the worker's supervisor there.

    Args:
        number: counts the workers of a campaign.
        transport: the way to the device.
        arguments: the command on the device.
        translate: makes requests for the device out of the engine's.
    """

    def __init__(
        self,
        number: int,
        transport: Transport,
        arguments: Sequence[str],
        translate: Translate = unchanged,
    ) -> None:
        super().__init__(number, transport.command(arguments))
        self._transport, self._translate = transport, translate

    def send(self, op: str, **fields: Any) -> None:
        """Send a request, its models first.

        Raises:
            WorkerFault: the link broke, or the workload cannot go there.
        """
        super().send(op, **self._translate(op, fields))

    def receive(self, op: str, timeout_s: float) -> wire.Frame:
        """Wait for the answer to ``op``; before a burst the device may first cool down.

        Raises:
            WorkerFault: as on this host; kind ``link`` where the way there broke.
        """
        frame = super().receive(op, timeout_s + (COOL_LIMIT_S if op == "burst" else 0.0))
        fault = _told(frame, op)
        if fault is not None:
            self.kill()
            raise fault
        return frame

    def stop(self) -> None:
        """Stop the worker on the device."""
        self._order("stop")

    def go_on(self) -> None:
        """Let the worker on the device go on."""
        self._order("go_on")

    def ending_fault(self, code: int | None, op: str, log: str) -> WorkerFault:
        """Return the fault of a session that ended without a word from the worker.

        The worker's supervisor tells how a worker ended, so this was the link, the supervisor
        with it, or a program that never started.
        """
        status = 255 if code is None or code < 0 else code
        failure = self._transport.complaint(status, log)
        message = str(failure) if failure else f"the agent ended during {op!r}: {last_words(log)}"
        # Status 0: the supervisor saw its link end. Of a worker's end it would have told.
        lost = isinstance(failure, LinkLostError) or status == 0 or status > _KILLED_BY_SIGNAL
        return WorkerFault(LINK if lost else "unavailable", message, lost=True)

    def _gone(self, op: str) -> WorkerFault:
        """Say how the session ended: first by the word that a worker's supervisor left.

        It waits unread where the worker ended between two requests, parked perhaps.
        """
        deadline_s = time.monotonic() + CLOSE_TIMEOUT_S
        with suppress(TimeoutError, wire.WireError):
            fault = _told(wire.decode(lambda size: self._read(size, deadline_s)), op)
            if fault is not None:
                self.kill()
                return fault
        return super()._gone(op)

    def _order(self, op: str) -> None:
        if self._is_ended:
            return
        try:
            write_all(self._in_fd, pack({"op": op}, magic=CONTROL_MAGIC))
        except BrokenPipeError:
            return  # the next request tells that the session is gone, and how


def _told(frame: wire.Frame, op: str) -> WorkerFault | None:
    """Return the fault that a supervisor's last word stands for; None for any other frame."""
    ended = frame.header.get("ended")
    if not isinstance(ended, int):
        return None
    # The counters are the device's: those of this host say nothing about it.
    return process_fault(ended, op, "", oom=frame.header.get("oom") is True)
