"""From a workload to a torch module, for every device that runs torch."""

from __future__ import annotations

import pytest

from hwprof.devices.torch_module import weight_bytes

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("rows", [2, 8])
def test_weights_that_share_memory_count_once(rows: int) -> None:
    module = torch.nn.Linear(4, 8, bias=False)
    module.register_buffer("first_rows", module.weight.detach()[:rows])
    assert list(module.state_dict())[-1] == "first_rows"
    assert weight_bytes(module) == 8 * 4 * 4
