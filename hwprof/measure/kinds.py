"""The kinds of failure, and which exceptions stand for which."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

from hwprof.errors import (
    CompileError,
    DataError,
    DeviceUnavailableError,
    HwprofError,
    MeasurementError,
    MissingExtraError,
    ModelError,
    PlanError,
    SpaceError,
)
from hwprof.measure.framing import WireError

FailureKind = Literal[
    "unsupported",
    "model",
    "plan",
    "refused",
    "out_of_memory",
    "non_finite",
    "disagrees",
    "fallback",
    "died",
    "hung",
    "garbage",
    "link",
]
"""Why there is no number for a workload (docs/measuring.md says what each means)."""
FaultKind = FailureKind | Literal["unavailable"]
"""Why a worker gave no usable answer. ``unavailable`` holds for every workload: it ends the
campaign, which another call goes on with, and so is never kept as a failure."""

FAILURE_KINDS: tuple[FailureKind, ...] = get_args(FailureKind)

_KINDS: Mapping[type[BaseException], FaultKind] = {
    ModelError: "model",
    SpaceError: "model",
    DataError: "model",
    PlanError: "plan",
    CompileError: "refused",
    MissingExtraError: "unavailable",
    DeviceUnavailableError: "unavailable",
    MemoryError: "out_of_memory",
    WireError: "garbage",
}
_ERRORS: Mapping[str, type[HwprofError]] = {
    "model": ModelError,
    "plan": PlanError,
    "refused": CompileError,
    "unsupported": CompileError,
    "unavailable": DeviceUnavailableError,
}


def failure_kind(error: BaseException) -> FaultKind:
    """Return the kind of failure that an exception stands for."""
    return next((kind for cls, kind in _KINDS.items() if isinstance(error, cls)), "refused")


def known_kind(text: object) -> FaultKind:
    """Return a kind that came over the wire; one that nobody knows is ``garbage``."""
    known: tuple[FaultKind, ...] = (*FAILURE_KINDS, "unavailable")
    return next((kind for kind in known if kind == text), "garbage")


def error_class(kind: str) -> type[HwprofError]:
    """Return what is raised for a failure of a lone workload, which no campaign goes on after."""
    return _ERRORS.get(kind, MeasurementError)
