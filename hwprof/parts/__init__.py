"""Which part of a model is slow: operator traces, corrected, grouped and reconciled."""

from hwprof.parts.assembly import assemble, is_same_machine, layout_s
from hwprof.parts.comparison import Comparison, compare_parts, comparison
from hwprof.parts.prefixes import PrefixCost, prefix_costs, prefixes
from hwprof.parts.records import PartsResult, PartTime
from hwprof.parts.tracing import trace_workloads

__all__ = [
    "Comparison",
    "PartTime",
    "PartsResult",
    "PrefixCost",
    "assemble",
    "compare_parts",
    "comparison",
    "is_same_machine",
    "layout_s",
    "prefix_costs",
    "prefixes",
    "trace_workloads",
]
