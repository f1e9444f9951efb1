"""Where a search's latencies come from, and whether that suits what will measure its networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hwprof.api.device_checks import refuse_emulated, require_same_device
from hwprof.api.runs import latency_model
from hwprof.errors import DataError, IncompatibleRunError
from hwprof.measure.records import DeviceOptions, Fingerprint
from hwprof.space import Architecture, DesignSpace, network_id

if TYPE_CHECKING:
    from hwprof.estimate.latency_model import AdditiveLatencyModel

Latencies = Callable[[Sequence[Architecture]], Sequence[tuple[float, float]]]
"""Gives the latency of each network with half its 95 % interval, in seconds."""


@dataclass(kw_only=True)
class LatencyModelCheck:
    """Raises where a run's model must not be used; else keeps what it was fitted on.

    Attributes:
        run: the run's folder.
        space: that is searched.
        measure_on: the device that the model must be of; None where any will do.
        options: of that device.
        allow_emulated: whether times of an emulated device count.
        fingerprint: of the device that the accepted model was fitted on; None of a table.
    """

    run: str | Path
    space: DesignSpace
    measure_on: str | None
    options: DeviceOptions
    allow_emulated: bool
    fingerprint: Fingerprint | None = None

    def __call__(self, model: AdditiveLatencyModel, device: str) -> None:
        """Accept the model of the run, which is of ``device``.

        Raises:
            IncompatibleRunError: it is of another space or device.
            PlanError: its device is emulated.
        """
        known, wanted = model.space, self.space
        if (known.name, known.resolution_px) != (wanted.name, wanted.resolution_px):
            raise IncompatibleRunError(
                f"the latencies in {str(self.run)!r} are of {known.name!r} at "
                f"{known.resolution_px} px, the search is in {wanted.name!r} at "
                f"{wanted.resolution_px} px: profile that one"
            )
        self.fingerprint = model.fingerprint
        if not self.allow_emulated:
            refuse_emulated(device, f"the run {str(self.run)!r}")
        if self.measure_on is not None:
            require_same_device(model, self.measure_on, self.options)


def open_latency(
    source: str | Path, accept: Callable[[AdditiveLatencyModel, str], None]
) -> tuple[Latencies, str | None]:
    """Open a run folder or a ``TABLE.csv`` as a latency source; return it with its device.

    Args:
        source: the folder or the file.
        accept: is given a run's model and its device, and raises where it must not be used.
    """
    if is_table(source):
        from hwprof.importing import read_latency_table

        return _TableLatency(table=read_latency_table(Path(source)), path=str(source)), None
    model, device = latency_model(source)
    accept(model, device)
    return predictions(model), device


def is_table(source: str | Path) -> bool:
    """Return whether latencies come from a ``TABLE.csv``, not from a run folder."""
    return str(source).endswith((".csv", ".csv.gz"))


def predictions(model: AdditiveLatencyModel) -> Latencies:
    """Return what a model predicts, as a search asks for it."""

    def predicted(archs: Sequence[Architecture]) -> list[tuple[float, float]]:
        latency_s, half_s = model.predict_many(archs)
        return list(zip(latency_s.tolist(), half_s.tolist(), strict=True))

    return predicted


@dataclass(frozen=True, kw_only=True)
class _TableLatency:
    """Latencies looked up in a table; a network that is not there has none."""

    table: dict[str, float]
    path: str

    def __call__(self, archs: Sequence[Architecture]) -> list[tuple[float, float]]:
        out = []
        for arch in archs:
            key = network_id(arch)
            if key not in self.table:
                raise DataError(f"{self.path!r} has no latency for {arch}")
            out.append((self.table[key], 0.0))
        return out
