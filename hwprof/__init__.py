"""hwprof: what every block of a family of networks costs on a device, and which to keep.

Every command is a function of the same name (``hwprof.profile(...)``, ``hwprof.search(...)``;
``import`` is :func:`import_`). ``search`` and ``devices`` are packages as well: what they take is
shown by ``help(hwprof.api.search)``. Importing the package imports no heavy dependency; names are
resolved on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hwprof.api import (
        adapt,
        add_device,
        bench,
        bench_batches,
        bench_parts,
        bench_prefixes,
        check_device,
        compare,
        compare_effects,
        cost,
        devices,
        effects,
        export,
        import_,
        insights,
        power_curve,
        predict,
        profile,
        quickstart,
        reduce,
        report,
        retime,
        search,
        selftest,
        spaces,
        suite_compare,
        suite_history,
        suite_run,
        train,
    )
    from hwprof.errors import HwprofError
    from hwprof.space import Architecture, DesignSpace, Slot, get_space, read_architecture

_COMMAND_PACKAGES = ("devices", "search")
"""Packages of the names of commands, which are called as such (:mod:`hwprof._callable`)."""
_HOME = {
    "HwprofError": "hwprof.errors",
    **dict.fromkeys(
        ("Architecture", "DesignSpace", "Slot", "get_space", "read_architecture"), "hwprof.space"
    ),
}
"""Of the names that are not in :mod:`hwprof.api`."""

__all__ = [  # noqa: RUF022 - commands first, then types
    "adapt",
    "add_device",
    "bench",
    "bench_batches",
    "bench_parts",
    "bench_prefixes",
    "check_device",
    "compare",
    "compare_effects",
    "cost",
    "devices",
    "effects",
    "export",
    "import_",
    "insights",
    "power_curve",
    "predict",
    "profile",
    "quickstart",
    "reduce",
    "report",
    "retime",
    "search",
    "selftest",
    "spaces",
    "suite_compare",
    "suite_history",
    "suite_run",
    "train",
    "Architecture",
    "DesignSpace",
    "HwprofError",
    "Slot",
    "get_space",
    "read_architecture",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'hwprof' has no attribute {name!r}")
    if name in _COMMAND_PACKAGES:
        return importlib.import_module(f"hwprof.{name}")
    return getattr(importlib.import_module(_HOME.get(name, "hwprof.api")), name)


def __dir__() -> list[str]:
    return sorted(__all__)
