"""One description of a network or block; from it ONNX, torch modules and exact costs."""

from hwprof.graph.build import emits, network_graph, piece_graph, workload_graph
from hwprof.graph.cost import Cost, architecture_cost, piece_cost
from hwprof.graph.ir import Graph, GraphBuilder, Node, TensorSpec
from hwprof.graph.onnx_writer import to_onnx
from hwprof.graph.torch_net import to_torch, weights_from_torch
from hwprof.graph.weights import Weights, random_weights

__all__ = [
    "Cost",
    "Graph",
    "GraphBuilder",
    "Node",
    "TensorSpec",
    "Weights",
    "architecture_cost",
    "emits",
    "network_graph",
    "piece_cost",
    "piece_graph",
    "random_weights",
    "to_onnx",
    "to_torch",
    "weights_from_torch",
    "workload_graph",
]
