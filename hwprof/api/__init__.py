"""Everything the commands do, under the same names.

``import hwprof; hwprof.profile(...)`` and ``from hwprof.api import profile`` are the same call.
This is the one layer, with the command line, that joins devices, search and reports.
"""

from __future__ import annotations

from hwprof.api.adapting import adapt
from hwprof.api.checking import selftest
from hwprof.api.main_job import quickstart
from hwprof.api.models import bench, cost, devices, export, spaces
from hwprof.api.parts import bench_parts
from hwprof.api.profiling import compare_effects, effects, import_, profile
from hwprof.api.reducing import predict, reduce
from hwprof.api.reporting import insights, report
from hwprof.api.searching import search, train

__all__ = [
    "adapt",
    "bench",
    "bench_parts",
    "compare_effects",
    "cost",
    "devices",
    "effects",
    "export",
    "import_",
    "insights",
    "predict",
    "profile",
    "quickstart",
    "reduce",
    "report",
    "search",
    "selftest",
    "spaces",
    "train",
]
