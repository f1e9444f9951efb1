"""Everything the commands do, under the same names.

``import hwprof; hwprof.profile(...)`` and ``from hwprof.api import profile`` are the same call.
This is the one layer, with the command line, that joins devices, search and reports.
"""

from __future__ import annotations

from hwprof.api.adapting import adapt
from hwprof.api.batches import bench_batches
from hwprof.api.boards import add_device, check_device
from hwprof.api.checking import power_curve, selftest
from hwprof.api.comparing import compare
from hwprof.api.exporting import export
from hwprof.api.friendliness import compare_effects, effects
from hwprof.api.main_job import quickstart
from hwprof.api.models import bench, cost, devices, spaces
from hwprof.api.parts import bench_parts, bench_prefixes
from hwprof.api.profiling import import_, profile
from hwprof.api.proxyless import ProxylessOptions
from hwprof.api.reducing import predict, reduce
from hwprof.api.reporting import insights, report
from hwprof.api.retiming import retime
from hwprof.api.searching import search, train
from hwprof.api.suites import suite_compare, suite_history, suite_run
from hwprof.api.te_nas import UntrainedChoice, search_te_nas

__all__ = [
    "ProxylessOptions",
    "UntrainedChoice",
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
    "search_te_nas",
    "selftest",
    "spaces",
    "suite_compare",
    "suite_history",
    "suite_run",
    "train",
]
