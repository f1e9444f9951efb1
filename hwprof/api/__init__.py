"""Everything the commands do, under the same names.

``import hwprof; hwprof.profile(...)`` and ``from hwprof.api import profile`` are the same call.
This is the one layer, with the command line, that joins devices, search and reports.
"""

from __future__ import annotations

from hwprof.api.boards import add_device, check_device
from hwprof.api.checking import selftest
from hwprof.api.exporting import export
from hwprof.api.main_job import quickstart
from hwprof.api.models import bench, cost, devices, spaces
from hwprof.api.parts import bench_parts
from hwprof.api.profiling import effects, import_, profile
from hwprof.api.proxyless import ProxylessOptions
from hwprof.api.reducing import predict, reduce
from hwprof.api.reporting import insights, report
from hwprof.api.searching import search, train

__all__ = [
    "ProxylessOptions",
    "add_device",
    "bench",
    "bench_parts",
    "check_device",
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
