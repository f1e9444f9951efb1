"""From a workload to a torch module, for every device that runs torch."""

from __future__ import annotations

import sys
import types

import pytest

from hwprof.devices.torch_module import module_of, weight_bytes
from hwprof.errors import ModelError
from hwprof.workload import InputSpec, Workload

torch = pytest.importorskip("torch")


def encoder(monkeypatch: pytest.MonkeyPatch, *given: str) -> Workload:
    """A callable that makes a module with three arguments, and inputs of the names given."""

    class Encoder(torch.nn.Module):  # type: ignore[name-defined, misc]
        def forward(self, ids: object, mask: object = None, types: object = None) -> object:
            return ids

    module = types.ModuleType("encoder_of_a_test")
    module.make = Encoder  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    specs = tuple(InputSpec(name=name, shape=(1, 4), dtype="int64") for name in given)
    return Workload.from_callable(f"{module.__name__}:make", specs)


def test_an_input_that_would_stand_for_another_argument_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = (
        r"'types' is number 2 of them but number 3 of the module's arguments \(ids, mask, types\)"
    )
    with pytest.raises(ModelError, match=words):
        module_of(encoder(monkeypatch, "ids", "types"), 1)


@pytest.mark.parametrize("given", [("ids", "mask"), ("x", "y", "z")])
def test_inputs_in_the_order_of_the_arguments_are_taken(
    monkeypatch: pytest.MonkeyPatch, given: tuple[str, ...]
) -> None:
    module_of(encoder(monkeypatch, *given), 1)


@pytest.mark.parametrize("rows", [2, 8])
def test_weights_that_share_memory_count_once(rows: int) -> None:
    module = torch.nn.Linear(4, 8, bias=False)
    module.register_buffer("first_rows", module.weight.detach()[:rows])
    assert list(module.state_dict())[-1] == "first_rows"
    assert weight_bytes(module) == 8 * 4 * 4
