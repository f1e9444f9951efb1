"""Every error that hwprof raises on purpose.

    HwprofError                      exit code 2: the user's to mend
    ├── SpaceError (ValueError)      a design space or an architecture that does not fit
    ├── ModelError (ValueError)      a model file or callable that cannot be used
    ├── DataError (ValueError)       images, tables or predictors that cannot be used
    ├── PlanError (ValueError)       options that contradict each other or the machine
    ├── StoreError                   a run folder that cannot be read or written
    │   ├── FormatVersionError       written by another version of the format
    │   └── IncompatibleRunError     holds results of another space, device or protocol
    ├── MissingExtraError            an optional package is not installed
    └── DeviceError (RuntimeError)   exit code 3: the device's to mend
        ├── DeviceUnavailableError   not installed, not there, or taken
        ├── CompileError             the runtime refuses the workload
        └── MeasurementError         it ran, but gave no number that may be shown

A message names the value, what was expected and the next step, in one line.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable


def is_disk_full(error: OSError) -> bool:
    """Say whether what failed for want of space, of the disk or of the user's share of it."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def next_step(error: OSError, otherwise: str) -> str:
    """Return what to do after ``error``: free space where the disk is full, else ``otherwise``."""
    return "free some space and run the same command again" if is_disk_full(error) else otherwise


def either(choices: Iterable[object]) -> str:
    """Return what was expected as a message names it: ``a, b or c``."""
    *others, last = map(str, choices)
    return f"{', '.join(others)} or {last}" if others else last


class HwprofError(Exception):
    """Root of the tree; ``exit_code`` is what the command line returns for it."""

    exit_code = 2


class SpaceError(HwprofError, ValueError):
    """A design space or an architecture does not fit."""


class ModelError(HwprofError, ValueError):
    """A model file or callable cannot be used."""


class DataError(HwprofError, ValueError):
    """Images, tables or predictors cannot be used."""


class PlanError(HwprofError, ValueError):
    """Options contradict each other or the machine."""


class StoreError(HwprofError):
    """A run folder cannot be read or written."""


class FormatVersionError(StoreError):
    """A file was written by another version of its format."""


class IncompatibleRunError(StoreError):
    """A run folder holds results of another space, device or protocol."""


class MissingExtraError(HwprofError):
    """An optional package is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package!r}, which is not installed: "
            f"run pip install 'hwprof[{extra}]'"
        )


class DeviceError(HwprofError, RuntimeError):
    """The device cannot do what was asked."""

    exit_code = 3


class DeviceUnavailableError(DeviceError):
    """The device is not installed, not there, or taken."""


class CompileError(DeviceError):
    """The runtime refuses the workload."""


class MeasurementError(DeviceError):
    """The workload ran, but gave no number that may be shown."""
