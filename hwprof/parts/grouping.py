"""Which part of a model every traced operator belongs to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from hwprof.parts.cuts import parts_up_to
from hwprof.parts.model_nodes import ModelNode, NodeFinder
from hwprof.parts.records import Grouping, Kind, PartTime, with_shares
from hwprof.parts.repeats import repeated_parts
from hwprof.protocols import OpTime, OpTrace

FEW_OPERATORS = 16
"""A block alone, say: so many are shown one by one."""
MOST_PARTS = 40
"""More than a person reads; modules are opened as deep as this allows."""
LEAST_SCOPED = 0.5
"""Share of the operators that must stand in a module for modules to be what is shown."""
OUTSIDE_MODULES = "outside modules"
OUTSIDE_OPERATORS = "start and end"
BEHIND = frozenset({"ReorderOutput", "ReformatOutput"})
FUSED = " + "
"""Joins the names of parts that a runtime fused into one operator."""


@dataclass(frozen=True, kw_only=True)
class Groups:
    """The part and the kind of every traced operator, in order."""

    grouped_by: Grouping
    parts: tuple[str, ...]
    kinds: tuple[Kind, ...]


def group_operators(
    ops: Sequence[OpTime],
    nodes: Sequence[ModelNode],
    scopes: Sequence[str] = (),
    cuts: Sequence[str] = (),
) -> Groups:
    """Map operators to parts.

    Args:
        ops: the trace, in order.
        nodes: the model as it was written; empty where nothing is known of it.
        scopes: the outermost scopes that are the parts (the blocks of a design space); without
            them modules, repeated subgraphs, operators and types are tried, in this order (where
            operators are few they come first).
        cuts: tensors at which the user wants parts to end; they come before all else.

    Raises:
        PlanError: the model has no such tensor.
    """
    finder = NodeFinder(nodes)
    layout = [finder.is_layout(op) for op in ops]
    found = [None if moved else finder.find(op) for op, moved in zip(ops, layout, strict=True)]
    known = frozenset(scopes)
    fused = [
        finder.find_members(op) or ([] if n is None else [n])
        for op, n in zip(ops, found, strict=True)
    ]
    scope_of = {n.name: n.path[0] if n.path[0] in known else None for m in fused for n in m}
    grouped_by: Grouping = "tensors" if cuts else "blocks"
    labels = _joined(fused, parts_up_to(nodes, cuts) if cuts else scope_of)
    if not any(labels):
        grouped_by, labels = _labels(ops, nodes, found, fused)
    return Groups(
        grouped_by=grouped_by,
        parts=tuple(_filled(ops, labels)),
        kinds=tuple("layout" if moved else "block" for moved in layout),
    )


def part_times(trace: OpTrace, groups: Groups, blocks: Mapping[str, str]) -> tuple[PartTime, ...]:
    """Return the parts in order of execution, changes of layout apart, and the call's overhead.

    ``blocks`` names what stands in a part.
    """
    members: defaultdict[tuple[str, Kind], list[OpTime]] = defaultdict(list)
    for op, part, kind in zip(trace.ops, groups.parts, groups.kinds, strict=True):
        members[part, kind].append(op)
    parts = [
        PartTime(
            part=part,
            kind=kind,
            traced_s=sum(op.time_s for op in ops),
            share=0.0,
            n_ops=sum(op.count for op in ops),
            op_types=tuple(dict.fromkeys(op.op_type for op in ops)),
            block=blocks.get(part) if kind == "block" else None,
        )
        for (part, kind), ops in members.items()
    ]
    outside = PartTime(
        part=OUTSIDE_OPERATORS,
        kind="overhead",
        traced_s=trace.outside_s,
        share=0.0,
        n_ops=0,
        op_types=(),
    )
    return with_shares([*parts, outside])


def _joined(
    fused: Sequence[Sequence[ModelNode]], label_of: Mapping[str, str] | Mapping[str, str | None]
) -> list[str | None]:
    """Return the part of every traced operator; the parts, where it was fused out of several.

    Nothing tells how the time of a fused operator falls to its members, so it is not divided.
    """
    joined = (dict.fromkeys(label_of[node.name] for node in nodes) for nodes in fused)
    return [FUSED.join(label for label in labels if label) or None for labels in joined]


def _labels(
    ops: Sequence[OpTime],
    nodes: Sequence[ModelNode],
    found: Sequence[ModelNode | None],
    fused: Sequence[Sequence[ModelNode]],
) -> tuple[Grouping, list[str | None]]:
    """Return the first grouping that says something about a model of the user's own."""
    one_by_one = [op.name if n is None else n.name for op, n in zip(ops, found, strict=True)]
    if len(ops) <= FEW_OPERATORS and any(found):
        return "operators", list(one_by_one)
    scoped = sum(n is not None and len(n.path) > 1 for n in found)
    if scoped >= LEAST_SCOPED * sum(n is not None for n in found) and scoped > 0:
        members = [node for group in fused for node in group]
        modules = module_parts(members, MOST_PARTS)
        if len(set(modules)) > 1:
            module_of = {node.name: name for node, name in zip(members, modules, strict=True)}
            return "modules", _joined(fused, module_of)
    names = repeated_parts(nodes, MOST_PARTS) if any(found) else None
    if names is not None:
        by_name = {node.name: name for node, name in zip(nodes, names, strict=True)}
        return "repeats", _joined(fused, by_name)
    if len(ops) <= MOST_PARTS and any(found):
        return "operators", list(one_by_one)
    return "types", [op.op_type for op in ops]


def module_parts(nodes: Sequence[ModelNode], most: int) -> list[str]:
    """Return the module of every node, as deep as gives at most ``most`` parts.

    A module counts as a level only where it has brothers: wrappers that hold all there is, and
    a block's one inner list, are not opened for their own sake.
    """
    levels = _levels(nodes)

    def label(node: ModelNode, depth: int) -> str:
        if (path := levels[node.name][:depth]) != ():
            return path[-1]
        return node.path[0] if len(node.path) > 1 else OUTSIDE_MODULES

    depth = max(map(len, levels.values()), default=0)
    while True:
        labels = [label(node, depth) for node in nodes]
        if depth <= 1 or len(set(labels)) <= most:
            return labels
        depth -= 1


def _levels(nodes: Sequence[ModelNode]) -> dict[str, tuple[str, ...]]:
    """Return the levels of every node's path that tell it from others."""
    modules: defaultdict[str, set[str]] = defaultdict(set)
    operators: defaultdict[str, set[str]] = defaultdict(set)
    for node in nodes:
        *parents, operator = node.path
        for parent, child in pairwise(("", *parents)):
            modules[parent].add(child)
        operators[parents[-1] if parents else ""].add(operator)

    def levels(node: ModelNode) -> tuple[str, ...]:
        *parents, operator = node.path
        kept = [child for parent, child in pairwise(("", *parents)) if len(modules[parent]) > 1]
        home = parents[-1] if parents else ""
        # Operators are shown one by one only in a module without modules.
        is_shown = not modules[home] and len(operators[home]) > 1
        return (*kept, operator) if is_shown else tuple(kept)

    return {node.name: levels(node) for node in nodes}


def _filled(ops: Sequence[OpTime], labels: Sequence[str | None]) -> list[str]:
    """Give what the runtime inserted to its neighbour.

    A runtime converts what an operator made behind it (``ReorderOutput``, ``ReformatOutput``), and
    what an operator needs right before it (everything else).
    """
    filled = list(labels)
    before: str | None = None
    for index, op in enumerate(ops):
        if filled[index] is None and op.op_type in BEHIND:
            filled[index] = before
        before = filled[index] or before
    behind: str | None = None
    for index in range(len(ops) - 1, -1, -1):
        filled[index] = behind = filled[index] or behind
    last = next((label for label in reversed(filled) if label), OUTSIDE_MODULES)
    return [label or last for label in filled]
