"""``bench --batch 1,8,32,128``: one network at several batch sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hwprof.api.models import as_workload, bench
from hwprof.api.tables import Table
from hwprof.errors import CompileError, MeasurementError, PlanError
from hwprof.measure.records import Cache, Measurement, Precision
from hwprof.progress import ProgressCallback
from hwprof.space import Architecture
from hwprof.workload import InputSpec


@dataclass(frozen=True, kw_only=True)
class BatchRow:
    """The measurement at one batch size, or why there is none."""

    batch: int
    measurement: Measurement | None
    failure: str = ""

    @property
    def per_image_s(self) -> float | None:
        """The level over the images of a call."""
        return None if self.measurement is None else self.measurement.level_s / self.batch

    def to_row(self) -> dict[str, Any]:
        """Return the documented keys of ``hwprof bench --batch N,M --json``, one entry each."""
        found = self.measurement
        return {
            "batch": self.batch,
            "per_image_s": self.per_image_s,
            "failure": self.failure or None,
            "measurement": None if found is None else found.to_json(),
        }


def bench_batches(
    model: Architecture | str | Path,
    batches: Sequence[int],
    *,
    device: str = "cpu",
    inputs: Sequence[InputSpec | str] = (),
    preset: str = "standard",
    cache: Cache = "hot",
    threads: int = 1,
    precision: Precision = "fp32",
    timeout_s: float = 120.0,
    seed: int = 0,
    script: str | None = None,
    progress: ProgressCallback | None = None,
) -> Table[BatchRow]:
    """Time a network of a space at several batch sizes, one after another.

    A size that the device refuses or cannot hold leaves its reason, and the others their numbers.

    Args:
        model: a network of a space.
        batches: the batch sizes, in the order in which they are measured.
        device: this argument and the others are those of :func:`hwprof.bench`.
        inputs: of a network of a space none.
        preset: ``quick``, ``standard`` or ``strict``.
        cache: ``hot`` or ``cold``.
        threads: threads of the runtime.
        precision: arithmetic type.
        timeout_s: longest a single step may take before it is ended.
        seed: of inputs, weights and the order of bursts.
        script: steers the ``null`` device only.
        progress: called as measuring goes on.

    Raises:
        PlanError: the model is a user's own, which has its batch in its inputs, or no size is given.
        DeviceError: the device is not there, or no size gave a number.
    """
    if not batches:
        raise PlanError("no batch size is given; expected one or more, such as 1, 8, 32")
    workload = as_workload(model, inputs)
    if workload.arch is None:
        raise PlanError(
            f"{workload.label!r} has its batch size in its inputs: give one batch size, and "
            "the inputs' shapes with --input"
        )
    rows: list[BatchRow] = []
    errors: list[CompileError | MeasurementError | PlanError] = []
    for batch in batches:
        try:
            found = bench(
                model,
                batch=batch,
                device=device,
                inputs=inputs,
                preset=preset,
                cache=cache,
                threads=threads,
                precision=precision,
                timeout_s=timeout_s,
                seed=seed,
                script=script,
                progress=progress,
            )
            rows.append(BatchRow(batch=batch, measurement=found))
        except (CompileError, MeasurementError, PlanError) as error:
            errors.append(error)
            rows.append(BatchRow(batch=batch, measurement=None, failure=str(error)))
    if len(errors) == len(rows):
        raise errors[0]
    return Table(tuple(rows))
