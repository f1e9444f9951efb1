"""What ONNX Runtime's profiler costs, measured on models whose own time is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwprof.devices.ort_profile import Call, OpenSession, ProfiledRun, Session, profile_calls
from hwprof.graph import network_graph, to_onnx
from hwprof.graph.onnx_writer import IR_VERSION, OPSET
from hwprof.parts.tracer import LOWEST_BURSTS, Chain, TracerCost, calibrate, lowest
from hwprof.space import get_space

LONG_CHAIN, SHORT_CHAIN = 100, 10
PASSES = 5
"""The host's slow spells last longer than a pass; the fastest half of them counts."""
CHAIN_SHAPE = (1, 16, 2, 2)
CONV_INPUTS = 3
"""What a convolution's event lists: image, weight, bias."""


def profiler_cost(open_session: OpenSession, threads: int) -> TracerCost:
    """Measure the profiler: inside operators, behind them, and per call. Takes 2 to 3 s."""
    small, wide = _small_network(), _convolutions(LONG_CHAIN)
    sources = (_signs(LONG_CHAIN), wide, _signs(SHORT_CHAIN), small)
    # The first profile of a process takes its memory fresh from the system, page by page.
    _profiled(open_session, wide, threads)
    passes = [[_profiled(open_session, s, threads) for s in sources] for _ in range(PASSES)]
    narrow_runs, wide_runs, short_runs, small_runs = (
        _fastest(runs) for runs in zip(*passes, strict=True)
    )
    return calibrate(
        narrow=_chain(narrow_runs, 1),
        wide=_chain(wide_runs, CONV_INPUTS),
        short=_chain(short_runs, 1),
        hot_gap_s=fmean(run.traced.usual_gap_s for run in small_runs),
    )


def _fastest(runs: Sequence[ProfiledRun]) -> list[ProfiledRun]:
    times_s = np.array([run.traced.call_s for run in runs])
    return [runs[i] for i in lowest(times_s, LOWEST_BURSTS)]


def _chain(runs: Sequence[ProfiledRun], n_inputs: int) -> Chain:
    return Chain(
        n_ops=len(runs[0].profile.names),
        n_inputs=n_inputs,
        added_s=fmean(r.traced.call_s - r.traced.gaps_s - r.plain_s for r in runs),
    )


def _profiled(open_session: OpenSession, source: bytes, threads: int) -> ProfiledRun:
    plain = _bind(open_session(source, None))
    return profile_calls(open_session, source, plain, _bind, threads)


def _bind(session: Session) -> Call:
    """Bind ones to a session's only input."""
    (given,) = session.get_inputs()
    binding = session.io_binding()
    binding.bind_cpu_input(given.name, np.ones(given.shape, dtype=np.float32))
    binding.bind_output(session.get_outputs()[0].name)
    return lambda: session.run_with_iobinding(binding)


def _small_network() -> bytes:
    """Return a network that stays in a core's caches."""
    space = get_space("mobile-mini")
    return to_onnx(network_graph(space, space.sample(np.random.default_rng(0))))


def _signs(n_ops: int) -> bytes:
    """Return a chain of operators that take next to no time, with one input each."""
    from onnx import helper

    nodes = [
        helper.make_node("Neg", [_chain_tensor(i)], [_chain_tensor(i + 1)], name=_chain_name(i))
        for i in range(n_ops)
    ]
    return _chain_model(nodes, {})


def _convolutions(n_ops: int) -> bytes:
    """Return a chain of the smallest convolutions, with weight and bias: what networks are of."""
    from onnx import helper

    channels = CHAIN_SHAPE[1]
    nodes = [
        helper.make_node(
            "Conv",
            [_chain_tensor(i), f"weight{i}", f"bias{i}"],
            [_chain_tensor(i + 1)],
            name=_chain_name(i),
            kernel_shape=[1, 1],
        )
        for i in range(n_ops)
    ]
    weight = np.eye(channels, dtype=np.float32).reshape(channels, channels, 1, 1)
    bias = np.zeros(channels, dtype=np.float32)
    arrays = {f"weight{i}": weight for i in range(n_ops)}
    return _chain_model(nodes, {**arrays, **{f"bias{i}": bias for i in range(n_ops)}})


def _chain_tensor(index: int) -> str:
    return f"t{index}"


def _chain_name(index: int) -> str:
    """Return a name as long as real ones: the profiler copies names, and long ones cost more."""
    return f"/features/features.{index}/conv/Conv"


def _chain_model(nodes: Sequence[Any], arrays: Mapping[str, NDArray[np.float32]]) -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    ends = [
        helper.make_tensor_value_info(_chain_tensor(i), TensorProto.FLOAT, CHAIN_SHAPE)
        for i in (0, len(nodes))
    ]
    values = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], values)
    opset = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, ir_version=IR_VERSION, opset_imports=opset)
    return bytes(model.SerializeToString())
