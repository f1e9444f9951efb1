"""From what a model says about its inputs to arrays that it takes, whatever the runtime."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

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
    run(narrow)
    return narrow


def _bind(node: ModelInput, given: InputSpec | None) -> InputSpec:
    dtype = node.dtype
    if dtype is None:
        raise ModelError(
            f"input {node.name!r} is of type {node.type_name}, which cannot be drawn at random"
        )
    if given is None:
        return InputSpec(name=node.name, shape=_fixed_shape(node, dtype), dtype=dtype)
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
        shape = "x".join(map(str, given.shape))
        raise ModelError(
            f"input {node.name!r} was given as {given.dtype}; the model expects {dtype}: use "
            f"--input {node.name}={shape}:{dtype}"
        )
    return given


def _fixed_shape(node: ModelInput, dtype: str) -> tuple[int, ...]:
    if node.shape is None:
        raise ModelError(
            f"input {node.name!r} has an open number of dimensions: give its shape, e.g. "
            f"--input {node.name}=1x3x224x224:{dtype}"
        )
    open_dims = [d for d in node.shape if not isinstance(d, int)]
    if open_dims:
        example = "x".join(str(d) if isinstance(d, int) else "1" for d in node.shape)
        raise ModelError(
            f"input {node.name!r} has the open dimension {str(open_dims[0])!r} in "
            f"{list(node.shape)}: give its shape, e.g. --input {node.name}={example}:{dtype}"
        )
    return tuple(d for d in node.shape if isinstance(d, int))
