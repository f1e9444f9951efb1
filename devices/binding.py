"""From what a model says about its inputs to arrays that it takes, whatever the runtime."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hwprof.devices.host import NARROW_INTEGERS, WIDE_INTEGERS, Array, random_inputs
from hwprof.errors import MeasurementError, ModelError
from hwprof.workload import InputSpec


@dataclass(frozen=True, kw_only=True)
class ModelInput:
    """An input as a model describes it; a dimension that is no number is open."""

    name: str
    shape: tuple[int | str | None, ...]
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
    specs: Sequence[InputSpec], seed: int, run: Callable[[dict[str, Array]], object]
) -> dict[str, Array]:
    """Return random inputs that the model takes.

    How far ids may go is known only to the model: a vocabulary's size is tried first, and
    where an index is out of range the narrowest choice, which also suits masks.

    Args:
        specs: the inputs.
        seed: of their values.
        run: runs the model once; raises a MeasurementError where it does not take them.

    Raises:
        MeasurementError: no choice suits the model.
    """
    wide = random_inputs(specs, seed, WIDE_INTEGERS)
    if not any(a.dtype.kind in "iu" for a in wide.values()):
        return wide
    try:
        run(wide)
    except MeasurementError:
        narrow = random_inputs(specs, seed, NARROW_INTEGERS)
        run(narrow)
        return narrow
    return wide


def _bind(node: ModelInput, given: InputSpec | None) -> InputSpec:
    dtype = node.dtype
    if dtype is None:
        raise ModelError(
            f"input {node.name!r} is of type {node.type_name}, which cannot be drawn at random"
        )
    if given is None:
        open_dims = [d for d in node.shape if not isinstance(d, int)]
        if open_dims:
            example = "x".join(str(d) if isinstance(d, int) else "1" for d in node.shape)
            raise ModelError(
                f"input {node.name!r} has the open dimension {str(open_dims[0])!r} in "
                f"{list(node.shape)}: give its shape, e.g. --input {node.name}={example}:{dtype}"
            )
        fixed = tuple(d for d in node.shape if isinstance(d, int))
        return InputSpec(name=node.name, shape=fixed, dtype=dtype)
    fits = len(given.shape) == len(node.shape) and all(
        not isinstance(want, int) or want == got
        for want, got in zip(node.shape, given.shape, strict=True)
    )
    if not fits:
        raise ModelError(
            f"input {node.name!r} was given the shape {list(given.shape)}; the model expects "
            f"{list(node.shape)}"
        )
    if given.dtype != dtype:
        shape = "x".join(map(str, given.shape))
        raise ModelError(
            f"input {node.name!r} was given as {given.dtype}; the model expects {dtype}: use "
            f"--input {node.name}={shape}:{dtype}"
        )
    return given
