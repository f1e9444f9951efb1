"""From traces and a measurement to the parts of a model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean

from hwprof.graph import workload_graph
from hwprof.measure.records import Measurement
from hwprof.parts.grouping import group_operators, part_times
from hwprof.parts.model_nodes import ModelNode, NodeFinder, nodes_of_file, nodes_of_graph
from hwprof.parts.records import PartsResult, PartTime, with_shares
from hwprof.parts.tracing import fastest
from hwprof.protocols import OpTrace
from hwprof.space import space_of
from hwprof.space.pieces import Placed
from hwprof.workload import Workload

SAME_MACHINE = 0.02
"""Farthest that plain calls in the traced processes may be from the level they are to explain."""


def is_same_machine(whole: Measurement, traces: Sequence[OpTrace]) -> bool:
    """Return whether the model was as fast where it was traced as where it was measured.

    Where it was not, one of the two was taken in a slower mode of the machine, and no sum of
    parts can say anything about the whole.
    """
    untraced_s = fmean(trace.untraced_s for trace in fastest(traces))
    return abs(untraced_s / whole.level_s - 1.0) <= SAME_MACHINE


def assemble(
    whole: Measurement, all_traces: Sequence[OpTrace], cuts: Sequence[str] = ()
) -> PartsResult:
    """Return the parts of the model that ``whole`` measured, means over the fastest processes.

    Args:
        whole: the model's level.
        all_traces: its operators, from one process each.
        cuts: tensors at which parts end; by default the model's own structure says.

    Raises:
        ModelError: the model's file cannot be read.
        PlanError: the model has no such tensor.
    """
    traces = fastest(all_traces)
    places = _places(whole.workload)
    blocks = {scope: place.block for scope, place in places.items() if place.block}
    nodes = written_nodes(whole.workload)
    groups = [group_operators(trace.ops, nodes, tuple(places), cuts) for trace in traces]
    removed_s = [op.removed_s for trace in traces for op in trace.ops]
    return PartsResult(
        measurement=whole,
        parts=join_parts([part_times(t, g, blocks) for t, g in zip(traces, groups, strict=True)]),
        grouped_by=groups[0].grouped_by,
        traced_s=fmean(trace.traced_s for trace in traces),
        untraced_s=fmean(trace.untraced_s for trace in traces),
        removed_per_op_s=fmean(removed_s) if removed_s else 0.0,
        n_processes=len(all_traces),
    )


def join_parts(runs: Sequence[Sequence[PartTime]]) -> tuple[PartTime, ...]:
    """Return the mean time of every part over processes.

    Parts are joined, not operators: a runtime numbers the ones it inserts, and orders those that
    do not depend on each other, differently from process to process.
    """
    same: dict[tuple[str, str], list[PartTime]] = {}
    for part in (part for parts in runs for part in parts):
        same.setdefault((part.part, part.kind), []).append(part)
    means = [
        replace(parts[0], traced_s=math.fsum(p.traced_s for p in parts) / len(runs))
        for parts in same.values()
    ]
    return with_shares(means)


def written_nodes(workload: Workload) -> list[ModelNode]:
    """Return a model's operators as it was written; none for a torch callable."""
    if workload.path is not None:
        return nodes_of_file(workload.path)
    return [] if workload.target is not None else nodes_of_graph(workload_graph(workload))


def layout_s(workload: Workload, traces: Sequence[OpTrace]) -> float:
    """Return what a workload spends in changes of layout that the runtime inserted."""
    finder = NodeFinder(written_nodes(workload))
    return fmean(
        math.fsum(op.time_s for op in trace.ops if finder.is_layout(op))
        for trace in fastest(traces)
    )


def _places(workload: Workload) -> Mapping[str, Placed]:
    """Return the pieces of a network of a space by scope; none for anything else."""
    if workload.arch is None:
        return {}
    return {place.scope: place for place in space_of(workload.arch).pieces(workload.arch)}
