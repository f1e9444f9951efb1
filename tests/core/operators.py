"""Operators, traces and models from nothing, for the tests of the parts of a model."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import TensorProto, helper

from hwprof.parts.model_nodes import ModelNode
from hwprof.protocols import OpTime, OpTrace


def op(name: str, op_type: str = "Conv", time_s: float = 1.0, *outputs: str) -> OpTime:
    return OpTime(name=name, op_type=op_type, time_s=time_s, outputs=outputs)


def trace(*ops: OpTime, outside_s: float = 0.5) -> OpTrace:
    return OpTrace(ops=ops, outside_s=outside_s, traced_s=9.0, untraced_s=6.0)


def chain(*specs: tuple[str, str]) -> list[ModelNode]:
    """Return nodes (name, type), each reading what the one before made."""
    nodes = []
    previous = "input"
    for name, op_type in specs:
        scopes = tuple(p for p in name.split("/") if p)
        path = tuple("/".join(scopes[: i + 1]) for i in range(len(scopes)))
        output = f"{name}_output_0"
        nodes.append(
            ModelNode(name=name, op_type=op_type, path=path, inputs=(previous,), outputs=(output,))
        )
        previous = output
    return nodes


def onnx_file(folder: Path, nodes: list[onnx.NodeProto], last: str) -> Path:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "g",
        [value("x", TensorProto.FLOAT, [1, 4])],
        [value(last, TensorProto.FLOAT, [1, 4])],
    )
    path = folder / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), str(path))
    return path
