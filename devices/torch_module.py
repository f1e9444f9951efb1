"""From a workload to a torch module with its inputs, for every device that runs torch."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hwprof.devices.binding import accepted_inputs
from hwprof.devices.host import Array, load_callable, random_inputs
from hwprof.errors import ModelError
from hwprof.graph import to_torch, workload_graph
from hwprof.measure.machine import usable_cpus
from hwprof.workload import InputSpec, Workload

if TYPE_CHECKING:
    import torch
    from torch import nn


def no_model_files(workload: Workload, other: str) -> str:
    """Return why a model file is not taken; nothing for anything else."""
    if workload.path is None:
        return ""
    return (
        f"{workload.label!r} is a model file, which torch does not run: use --device {other}, or "
        "name the module as package.module:callable"
    )


def module_of(workload: Workload, batch: int) -> tuple[nn.Module, list[InputSpec]]:
    """Return the module of a network, a block or a callable, and its inputs.

    Raises:
        ModelError: the callable fails, gives no module, or its inputs are not told.
    """
    if workload.target is not None:
        module, specs = _user_module(workload.target), list(workload.inputs)
        if not specs:
            raise ModelError(
                f"{workload.target!r} needs its inputs' shapes: give each in order, e.g. "
                "--input x=1x3x224x224:float32"
            )
        _require_order(module, specs)
        return module, specs
    graph = workload_graph(workload)
    first = graph.inputs[0]
    specs = [InputSpec(name=first.name, shape=(batch, *first.shape))]
    return to_torch(graph, seed=workload.seed), specs


def weight_bytes(module: nn.Module) -> int:
    """Return what parameters and buffers take, packed ones too; what is shared counts once."""
    import torch

    sizes: dict[int, int] = {}
    for tensor in leaves(module.state_dict()):
        if isinstance(tensor, torch.Tensor):
            place = tensor.data_ptr() if tensor.layout == torch.strided else id(tensor)
            # The first rows of a weight, kept beside it, begin where it does.
            sizes[place] = max(sizes.get(place, 0), tensor.numel() * tensor.element_size())
    return sum(sizes.values())


def inputs_for(module: nn.Module, specs: Sequence[InputSpec], seed: int) -> dict[str, Array]:
    """Return random inputs that a module on the host takes; any, where only a GPU runs it.

    An id beyond a table, which the host refuses, ends CUDA for the whole process.
    """
    import torch

    def run(arrays: Mapping[str, Array]) -> list[Array]:
        try:
            with torch.inference_mode():
                # A copy, for a module may keep tensors of its first call, which do not move with it.
                result = copy.deepcopy(module)(*tensors_of(arrays))
        except Exception as error:  # a user's module may raise anything
            raise ModelError(f"it does not run on the host: {error}") from error
        return arrays_of(result)

    n_threads = torch.get_num_threads()
    # A batch that fits a GPU may keep one core busy for minutes.
    torch.set_num_threads(len(usable_cpus()))
    try:
        return accepted_inputs(specs, seed, run)
    except ModelError:
        return random_inputs(specs, seed)
    finally:
        torch.set_num_threads(n_threads)


def set_fp32_precision(backend: Any, parts: Sequence[str], precision: str) -> None:
    """Say of parts of a torch back end what they may round float32 to, whatever is said of all.

    Args:
        backend: of ``torch.backends``.
        parts: their names; torch before 2.9 lacks the setting, or the part.
        precision: ``ieee`` or ``tf32``.
    """
    for name in parts:
        part: Any = getattr(backend, name, None)
        if hasattr(part, "fp32_precision"):
            part.fp32_precision = precision


def tensors_of(arrays: Mapping[str, Array]) -> list[torch.Tensor]:
    """Return the arrays as tensors on the host, in order; a scalar stays one."""
    import torch

    return [torch.from_numpy(np.asarray(a, order="C")) for a in arrays.values()]


def arrays_of(result: Any) -> list[Array]:
    """Return copies of the tensors in what a module returned, whatever they are nested in."""
    import torch

    return [array_of(t) for t in leaves(result) if isinstance(t, torch.Tensor)]


def leaves(result: Any) -> list[Any]:
    """Return the leaves of nested tuples, lists and mappings, in order."""
    if isinstance(result, Mapping):
        return [leaf for value in result.values() for leaf in leaves(value)]
    if isinstance(result, tuple | list):
        return [leaf for value in result for leaf in leaves(value)]
    return [result]


def array_of(tensor: torch.Tensor) -> Array:
    """Return a copy of a tensor's values; those that numpy lacks a type for as float32."""
    wide = tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor
    array: Array = wide.detach().cpu().numpy().copy()
    return array


def not_taken(label: str, shapes: list[list[int]], error: Exception) -> ModelError:
    """Return the error for a module that does not take its inputs."""
    return ModelError(
        f"{label!r} does not take inputs of the shapes {shapes}: "
        f"{type(error).__name__}: {error}; give them in order with --input"
    )


def _require_order(module: nn.Module, specs: Sequence[InputSpec]) -> None:
    """Refuse inputs that are named after other arguments than those that they would be given for.

    Raises:
        ModelError: one has the name of an argument that stands in another place.
    """
    try:
        names = list(inspect.signature(module.forward).parameters)
    except (TypeError, ValueError):  # compiled, it may not tell
        return
    for place, spec in enumerate(specs):
        if spec.name in names and names.index(spec.name) != place:
            raise ModelError(
                f"inputs are given in order, and {spec.name!r} is number {place + 1} of them but "
                f"number {names.index(spec.name) + 1} of the module's arguments ({', '.join(names)}): give "
                "those before it too, or wrap the module in one that takes what you give"
            )


def _user_module(target: str) -> nn.Module:
    from torch import nn

    found = load_callable(target)
    if not isinstance(found, nn.Module):
        if not callable(found):
            raise ModelError(f"{target!r} is a {type(found).__name__}; expected a callable")
        try:
            found = found()
        except Exception as error:  # a user's callable may raise anything
            raise ModelError(
                f"calling {target!r} failed: {type(error).__name__}: {error}"
            ) from error
    if not isinstance(found, nn.Module):
        raise ModelError(f"{target!r} gave a {type(found).__name__}; expected a torch.nn.Module")
    return found
