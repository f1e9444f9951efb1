"""Starts the engine's workers on another machine, and takes their models there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hwprof.devices.remote.artifacts import Artifacts
from hwprof.devices.remote.board import Board, board_at
from hwprof.devices.remote.transport import LinkLostError
from hwprof.errors import DeviceUnavailableError, HwprofError
from hwprof.measure.kinds import failure_kind
from hwprof.measure.load import Load, check_quiet
from hwprof.measure.process import LINK, Worker, WorkerFault
from hwprof.measure.records import DeviceRef
from hwprof.workload import Workload


def launch(ref: DeviceRef) -> RemoteLauncher:
    """Return what starts workers of ``ref``.

    Raises:
        DeviceUnavailableError: the device cannot be reached, is taken or is busy.
    """
    assert ref.address is not None
    board = board_at(ref.address)
    board.connect()
    try:
        return RemoteLauncher(ref, board)
    except DeviceUnavailableError:
        # It was busy when it was connected to: who tries again later asks it anew.
        board.close()
        raise


class RemoteLauncher:
    """Starts workers on a board.

    Args:
        ref: the device there.
        board: the machine it is on.

    Raises:
        DeviceUnavailableError: several threads are asked for while others keep it busy.
    """

    def __init__(self, ref: DeviceRef, board: Board) -> None:
        self._ref, self._board = ref, board
        self._artifacts = Artifacts(ref.name, ref.options)
        foreign = board.state.get("foreign_cores")
        if isinstance(foreign, float):
            n_cpus = int(board.state["usable_cpus"])
            found = Load(steal_share=0.0, foreign_cores=foreign, n_cpus=n_cpus)
            check_quiet(ref.options.threads, found)

    def start(self, number: int) -> Worker:
        """Start one worker process on the board."""
        return self._board.start_worker(number, self._translate)

    def free_memory_bytes(self) -> int | None:
        """Return the host's memory that models may take there."""
        return self._told_bytes("free_memory_bytes")

    def free_device_bytes(self) -> int | None:
        """Return what the board's GPU had free when it was connected to."""
        return None if self._ref.memory is None else self._told_bytes("free_gpu_memory_bytes")

    def _told_bytes(self, name: str) -> int | None:
        found = self._board.state.get(name)
        return found if isinstance(found, int) else None

    def _translate(self, op: str, fields: dict[str, Any]) -> dict[str, Any]:
        """Return a request that speaks of models on the board."""
        out = dict(fields)
        if op == "open":
            address = self._board.address
            options = {**out["device"]["options"], "precision": self._artifacts.precision_there}
            out["device"] = {**out["device"], "options": options}
            out["board"] = {
                "facts": {"precision": self._ref.options.precision, **self._artifacts.facts},
                "link": address.link,
                "cpus": address.cpus,
                "emulated": address.emulated,
                "start_c": self._board.start_c,
            }
        if "workload" in out:
            out["workload"] = self._placed(Workload.from_json(out["workload"])).to_json()
        if "key" in out:
            out["key"] = self._artifacts.key_there(out["key"])
        return out

    def _placed(self, workload: Workload) -> Workload:
        """Return the workload as it is on the board, its model copied there.

        Raises:
            WorkerFault: the link broke, or this workload cannot go there.
            DeviceUnavailableError: none can: the device is full or was given up.
        """
        try:
            there = self._artifacts.there(workload)
            if there.path is not None:
                self._board.provide(there.path, lambda: self._artifacts.content(workload))
        except LinkLostError as error:
            raise WorkerFault(LINK, str(error), lost=False) from error
        except DeviceUnavailableError:
            raise
        except HwprofError as error:
            raise WorkerFault(failure_kind(error), str(error), lost=False) from error
        return replace(there, label=workload.label)
