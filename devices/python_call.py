"""A Python function as a workload: what the pytest fixture times in fresh workers.

No device of its own, so it stands in no list: the function is the workload's target, its
arguments (plain data) are in ``DeviceOptions.script``.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hwprof.devices.host import Array, HostExecutable, host_fingerprint, load_callable
from hwprof.errors import DeviceError, ModelError
from hwprof.measure.records import DeviceOptions, Fingerprint, MeasurePlan
from hwprof.protocols import OpTrace, Support
from hwprof.workload import Workload

if TYPE_CHECKING:
    from hwprof.protocols import Arrays

REFERENCE_WORK = 2000


class PythonCallAdapter:
    """Calls functions. The engine's reference block is a fixed piece of Python work here."""

    def __init__(self, options: DeviceOptions) -> None:
        self._options = options

    def fingerprint(self) -> Fingerprint:
        """Return the machine's facts and Python's version."""
        return host_fingerprint(
            "python",
            self._options,
            runtime=platform.python_implementation(),
            runtime_version=platform.python_version(),
            settings={},
        )

    def supports(self, workload: Workload) -> Support:
        """Take functions, and blocks as stand-ins for the reference."""
        if workload.target is not None or workload.piece is not None:
            return Support(ok=True)
        return Support(ok=False, reason="the fixture times functions here; use .model for models")

    def compile(self, workload: Workload, plan: MeasurePlan) -> PythonCallExecutable:
        """Import the function.

        Raises:
            ModelError: it cannot be imported, or is not callable.
        """
        if workload.target is None:
            return PythonCallExecutable(_reference)
        began_s = time.perf_counter()
        function = load_callable(workload.target)
        if not callable(function):
            raise ModelError(f"{workload.target!r} is {function!r}; expected a function")
        told = json.loads(self._options.script or "{}")
        args, kwargs = told.get("args", []), told.get("kwargs", {})
        return PythonCallExecutable(
            lambda: function(*args, **kwargs), load_s=time.perf_counter() - began_s
        )

    def close(self) -> None:
        """Nothing to free."""


def _reference() -> object:
    return sum(range(REFERENCE_WORK))


class PythonCallExecutable(HostExecutable):
    """One function with its arguments."""

    provider = "python"

    def __init__(self, function: Callable[[], Any], load_s: float = 0.0) -> None:
        super().__init__(load_s=load_s, artifact_bytes=0)
        self._function = function

    def call(self) -> object:
        """Call the function."""
        return self._function()

    def outputs(self, inputs: Arrays | None = None) -> list[Array]:
        """Call it once; what it returns is the caller's business."""
        self._function()
        return []

    def trace(self) -> OpTrace:
        """Refuse: a function has no operators.

        Raises:
            DeviceError: always.
        """
        raise DeviceError("a Python function has no operators to trace")
