"""The operators of a model as it was written, and finding them again in a runtime's trace.

A runtime fuses operators, renames them and inserts its own. What it runs is traced back by the
name it gives (which begins with an original name or with an original tensor's), and by the
tensors that come out, which no fusion renames.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hwprof.errors import ModelError
from hwprof.graph import Graph
from hwprof.protocols import OpTime

LAYOUT_TYPES = frozenset({"ReorderInput", "ReorderOutput", "Reformat", "ReformatOutput"})
"""Inserted by ONNX Runtime (Reorder...) and TensorRT (Reformat...): how channels lie in memory."""
HEAVY = frozenset({"conv", "convtranspose", "gemm", "matmul"})
ELEMENTWISE = frozenset(
    {
        *("add", "sum", "mul", "clip", "relu", "relu6", "leakyrelu", "prelu", "elu", "mish"),
        *("sigmoid", "tanh", "hardsigmoid", "hardswish", "hsigmoid", "hswish"),
    }
)
"""What a runtime fuses into the heavy operator before it, which then bears this one's name."""

_SCOPES_KEY = "pkg.torch.onnx.name_scopes"
_NEURAL_TYPES: Mapping[str, str] = {"conv": "Conv", "linear": "Gemm"}
_BOUNDARY = re.compile(r"[^0-9A-Za-z]")
_LONGEST_FUSION = 3


@dataclass(frozen=True, kw_only=True)
class ModelNode:
    """One operator of a model as it was written.

    ``path`` names the modules around it from the outside in, each in full
    (``features``, ``features/features.3``), and the operator itself last.
    """

    name: str
    op_type: str
    path: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    parent: str = ""
    """The loop or branch that it is inside of, by name."""


def nodes_of_graph(graph: Graph) -> list[ModelNode]:
    """Return the operators of one of our own graphs that run."""
    return [
        ModelNode(
            name=node.name,
            op_type=_NEURAL_TYPES.get(node.op, node.op),
            path=_path_of_name(node.name),
            inputs=node.inputs,
            outputs=(node.name,),
        )
        for node in graph.live_nodes
    ]


def nodes_of_file(path: str | Path) -> list[ModelNode]:
    """Return the operators of an ONNX file, those inside loops and branches behind their parent.

    Raises:
        ModelError: it cannot be read.
    """
    import onnx

    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf's own error, which its typed interface does not name
        raise ModelError(
            f"cannot read {str(path)!r}: {error}; expected an ONNX file, export it again"
        ) from error
    return _nodes_of_proto(model.graph)


def _nodes_of_proto(graph: Any, parent: str = "") -> list[ModelNode]:
    constants = {value.name for value in graph.initializer}
    found: list[ModelNode] = []
    # The runtime turns constants into weights first, then calls the nameless by type and number.
    running = [node for node in graph.node if node.op_type != "Constant"]
    for index, node in enumerate(running):
        name = node.name or f"{node.op_type}_{index}"
        found.append(
            ModelNode(
                name=name,
                op_type=node.op_type,
                path=_path_of_metadata(node, name) or _path_of_name(name),
                inputs=tuple(x for x in node.input if x and x not in constants),
                outputs=tuple(y for y in node.output if y),
                parent=parent,
            )
        )
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                found += _nodes_of_proto(body, name)
    return found


def _path_of_name(name: str) -> tuple[str, ...]:
    """Return the scopes of a name with slashes, as torch, TensorFlow and our own builder write."""
    pieces = [piece for piece in name.split("/") if piece]
    return tuple("/".join(pieces[: i + 1]) for i in range(len(pieces)))


def _path_of_metadata(node: Any, name: str) -> tuple[str, ...]:
    """Return the scopes that torch's newer exporter keeps beside an operator; () without."""
    text = next((p.value for p in node.metadata_props if p.key == _SCOPES_KEY), None)
    if text is None:
        return ()
    try:
        scopes = ast.literal_eval(text)
    # All that it raises on texts that are no Python values, as its documentation lists them.
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return ()
    if not isinstance(scopes, list) or not all(isinstance(s, str) for s in scopes):
        return ()
    modules = [scope for scope in scopes[:-1] if scope]
    return (*modules, "/".join([*modules[-1:], name]))


class NodeFinder:
    """Finds the operator of the written model that a traced operator stands for."""

    def __init__(self, nodes: Sequence[ModelNode]) -> None:
        self._by_name = {node.name: node for node in nodes}
        self._by_output = {out: node for node in nodes for out in node.outputs}

    def find(self, op: OpTime) -> ModelNode | None:
        """Return the node; the heavy one where several were fused; None where none is known."""
        if members := self.find_members(op):
            return next((n for n in members if n.op_type.lower() in HEAVY), members[0])
        node = self._by_name.get(op.name) or self._by_tensor(op.outputs)
        node = node or self._by_tensor([op.name.removesuffix("_nchwc")])
        node = node or self._by_prefix(op.name)
        return None if node is None else self._heavy(node, op)

    def find_members(self, op: OpTime) -> list[ModelNode]:
        """Return all nodes that were fused into the operator, as far as the runtime names them.

        TensorRT calls an operator without a name after its output.
        """
        found = (
            self._by_name.get(name) or self._by_output.get(name.removeprefix("node_of_"))
            for name in op.members
        )
        return [node for node in found if node is not None]

    def is_layout(self, op: OpTime) -> bool:
        """Return whether the runtime put the operator there to change a tensor's layout."""
        return op.op_type in LAYOUT_TYPES or (
            op.op_type == "Transpose" and op.name not in self._by_name
        )

    def _by_tensor(self, tensors: Iterable[str]) -> ModelNode | None:
        return next((self._by_output[t] for t in tensors if t in self._by_output), None)

    def _by_prefix(self, name: str) -> ModelNode | None:
        """Return the node whose name, or whose tensor's, the longest part of ``name`` is."""
        for boundary in reversed(list(_BOUNDARY.finditer(name))):
            head = name[: boundary.start()]
            if found := self._by_name.get(head) or self._by_output.get(head):
                return found
        return None

    def _heavy(self, node: ModelNode, op: OpTime) -> ModelNode:
        """Go back from a fused elementwise operator to what it was fused into."""
        wanted = op.op_type.removeprefix("Fused").lower()
        level = [node] if wanted in HEAVY else []
        for _ in range(_LONGEST_FUSION + 1):
            if found := next((n for n in level if n.op_type.lower() == wanted), None):
                return found
            fused = [n for n in level if n.op_type.lower() in ELEMENTWISE]
            level = [self._by_output[x] for n in fused for x in n.inputs if x in self._by_output]
        return node
