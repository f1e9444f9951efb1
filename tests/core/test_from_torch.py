"""A torch module becomes operators: the same output with the weights copied over."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn

from hwprof.errors import ModelError
from hwprof.graph import GraphBuilder, to_onnx, to_torch
from hwprof.graph.from_torch import emit_module


class Gated(nn.Module):
    """Everything the tracer takes, with a shortcut and a gate."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.norm = nn.BatchNorm2d(channels, eps=1e-3)
        self.act = nn.Hardswish()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.gate = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.Hardsigmoid())
        self.late = nn.BatchNorm2d(channels)
        self.down = nn.AvgPool2d(3, 2, 1, count_include_pad=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.norm(self.conv(x)))
        y = y * self.gate(self.pool(y))
        out: Tensor = self.down(nn.functional.relu(self.late(x + y)))
        return out


class Doubled(nn.Module):
    """A sum that counts one side twice."""

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = torch.add(x, x, alpha=2)
        return out


class Spatial(nn.Module):
    """A factor per pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.mask = nn.Conv2d(6, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.mask(x) * x
        return out


class Branched(nn.Module):
    """Two branches, each of which begins with the same activation."""

    def __init__(self) -> None:
        super().__init__()
        self.act = nn.ReLU()
        self.wide = nn.Conv2d(6, 6, 3, padding=1)
        self.narrow = nn.Conv2d(6, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.wide(self.act(x)) + self.narrow(self.act(x))
        return out


class Named(nn.Module):
    """A call that names its tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(6, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(input=x)
        return out


@pytest.mark.parametrize(
    ("module", "ops"),
    [
        (nn.Conv2d(6, 4, 3, 2, 1), ["conv"]),
        (nn.BatchNorm2d(6), ["batch_norm"]),
        (nn.MaxPool2d(3, 2, 1), ["max_pool"]),
        (nn.Hardswish(), ["hswish"]),
        (nn.Identity(), ["identity"]),
        (Branched(), ["relu", "conv", "relu", "conv", "add"]),
    ],
)
def test_one_of_torchs_own_modules_and_an_activation_twice(
    module: nn.Module, ops: list[str]
) -> None:
    builder = GraphBuilder("bare", (6, 9, 9))
    graph = builder.finish(emit_module(builder, module, builder.input))
    assert [node.op for node in graph.nodes] == ops
    assert graph.params == sum(p.numel() for p in module.parameters())
    with torch.no_grad():
        assert graph.output_shape == tuple(module(torch.zeros(2, 6, 9, 9)).shape[1:])


def test_outputs_are_equal_with_the_weights_copied() -> None:
    module = Gated(6).eval()
    for norm in (module.norm, module.late):
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean.uniform_(-1, 1)
        norm.running_var.uniform_(0.5, 2)
    builder = GraphBuilder("gated", (6, 9, 9))
    graph = builder.finish(emit_module(builder, module, builder.input))
    assert [n.op for n in graph.nodes].count("batch_norm") == 1
    assert graph.params == sum(p.numel() for p in module.parameters())
    network = to_torch(graph).eval()
    mine = [p for p in network.state_dict().values() if p.dtype.is_floating_point]
    theirs = {k: v for k, v in module.state_dict().items() if v.dtype.is_floating_point}
    order = sorted(theirs, key=lambda k: ["conv", "norm", "gate", "late"].index(k.split(".")[0]))
    assert [tuple(p.shape) for p in mine] == [tuple(theirs[k].shape) for k in order]
    for parameter, name in zip(mine, order, strict=True):
        parameter.copy_(theirs[name])
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 6, 9, 9)).astype(np.float32))
    with torch.no_grad():
        torch.testing.assert_close(network(x), module(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("side", [8, 9])
@pytest.mark.parametrize(
    "pool",
    [
        nn.MaxPool2d(4, 2, 1, ceil_mode=True),
        nn.AvgPool2d(4, 2, 1, ceil_mode=True, count_include_pad=False),
        nn.MaxPool2d(2, 2, ceil_mode=True),
        nn.MaxPool2d(3, 2, 1),
        nn.AvgPool2d(2, 3, ceil_mode=True),
    ],
)
def test_pools_cover_the_edge_in_every_form(pool: nn.Module, side: int) -> None:
    builder = GraphBuilder("pool", (2, side, side))
    graph = builder.finish(emit_module(builder, nn.Sequential(pool), builder.input))
    x = np.random.default_rng(0).normal(size=(1, 2, side, side)).astype(np.float32) - 5.0
    expected = pool(torch.from_numpy(x)).numpy()
    assert graph.output_shape == expected.shape[1:]
    np.testing.assert_allclose(to_torch(graph)(torch.from_numpy(x)).numpy(), expected, rtol=1e-5)
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(to_onnx(graph), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"input": x})
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Sequential(nn.GELU()), r"Sequential\.0 is a GELU, which has no operator"),
        (nn.Sequential(nn.Conv2d(6, 6, 3)), r"padding \(0, 0\)"),
        (nn.Sequential(nn.Conv2d(6, 6, 3, padding=2, dilation=2)), "no dilation"),
        (nn.Sequential(nn.Conv2d(6, 6, 3, padding=1, padding_mode="reflect")), "with zeros"),
        (nn.Sequential(nn.AvgPool2d(3, 1, 1)), "count_include_pad=False"),
        (nn.Sequential(nn.AvgPool2d(2, ceil_mode=True, divisor_override=3)), "divisor_override"),
        (nn.Sequential(nn.MaxPool2d((3, 1), 1, (1, 0))), "expected a square pool"),
        (nn.Sequential(nn.MaxPool2d(3, 1, 1, dilation=2)), "no dilation"),
        (nn.Sequential(nn.MaxPool2d(2)), "rounded up"),
        (nn.Sequential(nn.BatchNorm2d(6, affine=False)), "expected affine=True"),
        (Doubled(), r"with \{'alpha': 2\}"),
        (Named(), "tensors in their order"),
        (Spatial(), "expected a factor per channel"),
    ],
)
def test_what_has_no_operator_is_refused(module: nn.Module, message: str) -> None:
    builder = GraphBuilder("refused", (6, 9, 9))
    with pytest.raises(ModelError, match=message):
        emit_module(builder, module, builder.input)
