"""From what a model says about its inputs to arrays that it takes, whatever the runtime."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np

from hwprof.devices.host import (
    NARROW_INTEGERS,
    WIDE_INTEGERS,
    Array,
    all_finite,
    random_inputs,
)
from hwprof.errors import MeasurementError, ModelError
from hwprof.workload import InputSpec


@dataclass(frozen=True, kw_only=True)
class ModelInput:
    """An input as a model describes it; a dimension that is no number is open."""

    name: str
    shape: tuple[int | str | None, ...] | None
    """None where even the number of dimensions is open."""
    type_name: str
    """Its type in the runtime's own words."""
    dtype: str | None
    """The same as numpy calls it; None where no array can be drawn of it."""


def bind_inputs(model_inputs: Sequence[ModelInput], given: Sequence[InputSpec]) -> list[InputSpec]:
    """Return every input of a model with a fixed shape and type.

    Args:
        model_inputs: what the model says, with open dimensions.
        given: what the user bound with ``--input``.

    Raises:
        ModelError: a name is unknown, a dimension unbound, or shape or type do not fit.
    """
    by_name = {s.name: s for s in given}
    known = [node.name for node in model_inputs]
    for name in by_name:
        if name not in known:
            raise ModelError(f"the model has no input {name!r}; its inputs are {known}")
    if unbound := [node for node in model_inputs if node.name not in by_name and _is_open(node)]:
        raise ModelError(_open_inputs(unbound))
    return [_bind(node, by_name.get(node.name)) for node in model_inputs]


def accepted_inputs(
    specs: Sequence[InputSpec], seed: int, run: Callable[[dict[str, Array]], Sequence[Array]]
) -> dict[str, Array]:
    """Return random inputs that the model takes.

    How far ids may go is known only to the model: a vocabulary's size is tried first, and
    where an index is out of range or an output is not finite (a mask is multiplied by the
    largest number there is) the narrowest choice.

    Args:
        specs: the inputs.
        seed: of their values.
        run: runs the model once; raises a MeasurementError or a ModelError where it does not
            take them.

    Raises:
        MeasurementError, ModelError: what ``run`` raises where no choice suits the model.
    """
    wide = random_inputs(specs, seed, WIDE_INTEGERS)
    if not any(a.dtype.kind in "iu" for a in wide.values()):
        return wide
    with suppress(MeasurementError, ModelError):
        if all_finite(run(wide)):
            return wide
    narrow = random_inputs(specs, seed, NARROW_INTEGERS)
    try:
        run(narrow)
    except (MeasurementError, ModelError) as error:
        if not (told := drawn_switches(specs, narrow)):
            raise
        raise type(error)(f"{error}; {'; '.join(told)}") from error
    return narrow


def drawn_switches(specs: Sequence[InputSpec], arrays: Mapping[str, Array]) -> tuple[str, ...]:
    """Return what must be said of single numbers that were drawn at random.

    A sampling rate, a flag or a number of rounds may decide what a model does, and so its latency.
    """
    return tuple(
        f"the input {s.name!r} was drawn at random as {arrays[s.name].item()}, which may decide what "
        f"the model does: give the value that you use, --input {s.text}=VALUE"
        for s in specs
        if s.value is None
        and len(s.shape) <= 1
        and math.prod(s.shape) == 1
        and np.dtype(s.dtype).kind in "iub"
    )


def _bind(node: ModelInput, given: InputSpec | None) -> InputSpec:
    dtype = node.dtype
    if dtype is None:
        raise ModelError(
            f"input {node.name!r} is of type {node.type_name}, which cannot be drawn at random: "
            "export the model with inputs that are tensors of numbers"
        )
    if given is None:
        shape = tuple(d for d in node.shape or () if isinstance(d, int))
        return InputSpec(name=node.name, shape=shape, dtype=dtype)
    fits = node.shape is None or (
        len(given.shape) == len(node.shape)
        and all(
            not isinstance(want, int) or want == got
            for want, got in zip(node.shape, given.shape, strict=True)
        )
    )
    if not fits:
        raise ModelError(
            f"input {node.name!r} was given the shape {list(given.shape)}; the model expects "
            f"{list(node.shape or ())}"
        )
    if given.dtype != dtype:
        raise ModelError(
            f"input {node.name!r} was given as {given.dtype}; the model expects {dtype}: use "
            f"--input {replace(given, dtype=dtype).text}"
        )
    return given


def _is_open(node: ModelInput) -> bool:
    return node.dtype is not None and (
        node.shape is None or not all(isinstance(d, int) for d in node.shape)
    )


def _open_inputs(nodes: Sequence[ModelInput]) -> str:
    """Say of all inputs whose shape must be given what to give: one try is enough."""
    told, examples = [], []
    for node in nodes:
        if node.shape is None:
            told.append(f"input {node.name!r} has an open number of dimensions")
            sizes = ["1", "3", "224", "224"]
        else:
            first = next(d for d in node.shape if not isinstance(d, int))
            told.append(
                f"input {node.name!r} has the open dimension {str(first)!r} in {[*node.shape]}"
            )
            # A batch of one is what most want; of a length or of pixels any number would mislead.
            sizes = [
                str(d) if isinstance(d, int) else "N" if place else "1"
                for place, d in enumerate(node.shape)
            ]
        examples.append(f"--input {node.name}={'x'.join(sizes)}:{node.dtype}")
    is_asked = any("N" in text.rpartition("=")[2] for text in examples)
    which = ", with a size of yours for every N" if is_asked else ""
    its = "its shape" if len(nodes) == 1 else "their shapes"
    return f"{', '.join(told)}: give {its}, e.g. {' '.join(examples)}{which}"
