"""What the layers of a TensorRT engine are made of, and how long each takes.

A layer of an engine stands for one operator, for several that were fused, or for none (a change
of layout). Which ones is told by the engine inspector's ``Metadata``, which names the ONNX nodes
that went into a layer; an engine without it is read by its layers' names:

    a + b                     fused one behind the other
    a || b                    fused side by side: the same input
    PWN(a, b)                 elementwise operators in one kernel
    {ForeignNode[a...b]}      a region from a to b, compiled as a whole
    Reformatting CopyNode for Input Tensor 0 to a
                              a change of layout or type that a needs

Only names of the written model are taken for members: TensorRT makes up others.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwprof.errors import MeasurementError
from hwprof.protocols import OpTime

REFORMAT = "Reformat"
"""TensorRT's type of a layer that changes layout or type."""
REFORMAT_OUTPUT = "ReformatOutput"
"""Ours for one that stands behind the operator it serves."""

NAMELESS = "node_of_"
"""Before the first output's name: how TensorRT's parser calls an operator without a name."""

_METADATA_MARK = "[ONNX Layer: "
_METADATA_END = re.compile(r"\](?=[\x1e\x1f\s\[]|$)")
_FOREIGN = re.compile(r"\{ForeignNode\[(.*?)\]\}")
_REFORMAT_NAME = re.compile(r"^Reformatting CopyNode for (Input|Output) Tensor \d+ to (.*)$")
_JOINTS = re.compile(r" \+ | \|\| |PWN\(|[(),]")


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One layer of an engine."""

    name: str
    op_type: str
    members: tuple[str, ...]
    """Operators of the written model that it computes (that it serves, for a change of layout)."""
    outputs: tuple[str, ...]


def engine_layers(information: str, written: Sequence[str]) -> dict[str, Layer]:
    """Return the layers of an engine by name, in order.

    Args:
        information: what the engine inspector says, as JSON. TensorRT 10 and 11 spell the key
            beside the layers differently (``Bindings``, ``I/O Tensors``); it is not needed. Where
            the engine was built with less than detailed verbosity, layers are bare names.
        written: names of the model's operators, in order.

    Raises:
        MeasurementError: it is no such JSON.
    """
    try:
        entries = json.loads(information)["Layers"]
        rows = [{"Name": e} if isinstance(e, str) else e for e in entries]
        raw = {str(row["Name"]): row for row in rows}
    except (ValueError, KeyError, TypeError) as error:
        raise MeasurementError(
            f"tensorrt's engine inspector gave no list of layers ({error!r}); expected JSON with "
            "'Layers'"
        ) from error
    known = frozenset(written)
    named = {name: _named(name, str(row.get("Metadata", "")), known) for name, row in raw.items()}
    taken = frozenset(member for members in named.values() for member in members)
    return {
        name: _layer(name, row, (*named[name], *_ranged(name, written, taken)))
        for name, row in raw.items()
    }


def metadata_members(metadata: str) -> tuple[str, ...]:
    """Return the ONNX nodes that a layer's metadata names, as they stand there."""
    pieces = metadata.split(_METADATA_MARK)[1:]
    return tuple(dict.fromkeys(_METADATA_END.split(piece)[0] for piece in pieces))


def _layer(name: str, row: Mapping[str, Any], members: tuple[str, ...]) -> Layer:
    op_type = str(row.get("LayerType", "layer"))
    if reformat := _REFORMAT_NAME.match(name):
        op_type = REFORMAT_OUTPUT if reformat[1] == "Output" else REFORMAT
    outputs = [o["Name"] for o in row.get("Outputs", ()) if isinstance(o, dict) and "Name" in o]
    return Layer(name=name, op_type=op_type, members=members, outputs=tuple(outputs))


def _named(name: str, metadata: str, known: frozenset[str]) -> tuple[str, ...]:
    """Return the members that metadata or name give one by one."""
    if told := tuple(m for m in metadata_members(metadata) if m in known):
        return told
    if reformat := _REFORMAT_NAME.match(name):
        name = reformat[2]
    pieces = (piece.strip() for piece in _JOINTS.split(_FOREIGN.sub("", name)))
    return tuple(dict.fromkeys(piece for piece in pieces if piece in known))


def _ranged(name: str, written: Sequence[str], taken: frozenset[str]) -> tuple[str, ...]:
    """Return the members of a region that is told by its first and last operator only.

    What lies between them in the written order belongs to it, unless another layer names it.
    An end that TensorRT made up tells nothing: then only the other one is a member.
    """
    places = {operator: place for place, operator in enumerate(written)}
    found: dict[str, None] = {}
    for region in _FOREIGN.findall(name):
        first, _, last = region.partition("...")
        ends = [
            [places[piece] for p in _JOINTS.split(end) if (piece := p.strip()) in places]
            for end in (first, last)
        ]
        if known := [place for end in ends for place in end]:
            span = written[min(known) : max(known) + 1]
            found.update(dict.fromkeys(n for n in span if n not in taken))
    return tuple(found)


def layer_times(
    calls: Sequence[Mapping[str, float]], layers: Mapping[str, Layer]
) -> tuple[OpTime, ...]:
    """Return the layers' times in order of execution: means over the calls nearest the median.

    Means of the same calls add up to the mean of their sums, which medians layer by layer do not.
    A GPU's fastest calls are those of a cold chip, so the floor is not what is looked for.

    Args:
        calls: seconds by layer, of every call.
        layers: what is known of the layers.

    Raises:
        MeasurementError: the profiler reported no layers, or not the same ones in every call.
    """
    if not calls or not calls[0]:
        raise MeasurementError("tensorrt's profiler reported no layers; expected at least one")
    names = list(calls[0])
    if any(call.keys() != calls[0].keys() for call in calls):
        raise MeasurementError("tensorrt's profiler reported other layers from call to call")
    times_s = np.array([[call[name] for name in names] for call in calls])
    means_s = times_s[middle_half(times_s.sum(axis=1))].mean(axis=0)
    return tuple(
        _op_time(layers.get(name), name, time_s)
        for name, time_s in zip(names, means_s, strict=True)
    )


def middle_half(values: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return the indices of the half of ``values`` that lies round the median, at least one."""
    n_dropped = values.size // 4
    return np.argsort(values, kind="stable")[n_dropped : values.size - n_dropped]


def _op_time(layer: Layer | None, name: str, time_s: float) -> OpTime:
    if layer is None:  # the inspector knows nothing of it; its time counts all the same
        return OpTime(name=name, op_type="layer", time_s=float(time_s))
    return OpTime(
        name=name,
        op_type=layer.op_type,
        time_s=float(time_s),
        outputs=layer.outputs,
        members=layer.members,
    )


def collecting_profiler(trt: Any) -> Any:
    """Return a profiler that keeps the layer times of one call."""

    class Collector(trt.IProfiler):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)
            self._times_s: dict[str, float] = {}

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            # A layer inside a loop is reported once for every turn.
            self._times_s[layer_name] = self._times_s.get(layer_name, 0.0) + 1e-3 * ms

        def take_call(self) -> dict[str, float]:
            """Return the seconds by layer since the last call, and forget them."""
            taken, self._times_s = self._times_s, {}
            return taken

    return Collector()
