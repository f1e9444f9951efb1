"""Parts of a model that end where a user says: at tensors of the model, by name."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Mapping, Sequence

from hwprof.errors import PlanError
from hwprof.parts.model_nodes import ModelNode

MOST_NAMED = 5
"""Tensors that an error lists."""


def parts_up_to(nodes: Sequence[ModelNode], tensors: Sequence[str]) -> dict[str, str]:
    """Return the part of every operator, by its name.

    An operator belongs to the earliest of the named tensors that needs it; what none of them needs
    stands behind the last. What is inside a loop or a branch belongs where that does.

    Args:
        nodes: the model as it was written.
        tensors: names of tensors that operators make, in any order.

    Raises:
        PlanError: no operator makes a tensor of that name.
    """
    maker = {out: node for node in nodes for out in node.outputs if not node.parent}
    for tensor in tensors:
        if tensor not in maker:
            raise PlanError(_unknown(tensor, list(maker)))
    # An operator is never written before one whose output it reads.
    ordered = [tensor for tensor in maker if tensor in tensors]
    reads = _reads(nodes)
    part_of: dict[str, str] = {}
    for tensor in ordered:
        waiting = [tensor]
        while waiting:
            node = maker.get(waiting.pop())
            if node is not None and node.name not in part_of:
                part_of[node.name] = f"up to {tensor}"
                waiting += reads[node.name]
    rest = f"behind {ordered[-1]}"
    for node in nodes:  # a parent stands before what is inside it
        part_of.setdefault(node.name, part_of[node.parent] if node.parent else rest)
    return part_of


def _reads(nodes: Sequence[ModelNode]) -> Mapping[str, list[str]]:
    """Return the tensors that every outer operator reads, itself or inside it."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    outer_of: dict[str, str] = {}
    for node in nodes:  # the nameless inside are numbered anew: what is outside has the name
        if node.parent:
            outer = outer_of[node.parent]
            outer_of.setdefault(node.name, outer)
        else:
            outer = outer_of[node.name] = node.name
        found[outer] += node.inputs
    return found


def _unknown(tensor: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(tensor, known, MOST_NAMED, cutoff=0.4) or known[:MOST_NAMED]
    if not near:
        return (
            f"no tensor {tensor!r}: nothing is known of the operators of this model; expected an "
            "ONNX file or a network, leave out --cut"
        )
    return (
        f"no operator makes a tensor {tensor!r}; expected a name such as "
        f"{', '.join(map(repr, near))} (a viewer such as Netron shows all)"
    )
