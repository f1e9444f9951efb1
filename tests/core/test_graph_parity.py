"""One description, three ways to compute it: graph, torch and ONNX agree on every block."""

import sys

import numpy as np
import onnx
import onnxruntime
import pytest

from hwprof.errors import MissingExtraError, ModelError
from hwprof.graph import (
    Graph,
    GraphBuilder,
    architecture_cost,
    network_graph,
    piece_cost,
    piece_graph,
    to_onnx,
    to_torch,
    torch_net,
    weights_from_torch,
)
from hwprof.space import get_space
from hwprof.space.pieces import (
    BottleneckPiece,
    CellOpPiece,
    CellPiece,
    ConvPiece,
    HeadPiece,
    MBConvPiece,
    Piece,
    ReductionPiece,
    ResNetStemPiece,
    SkipPiece,
)

torch = pytest.importorskip("torch")

RELATIVE_ERROR = 1e-5
"""Largest difference allowed, relative to the largest output."""


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Tests run beside each other; threads that wait for a core make them slow."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


def run_onnx(model: bytes, image):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {"input": image})
    return output


def mbconv(**changes: object) -> MBConvPiece:
    fields: dict[str, object] = {
        "in_channels": 16,
        "size_px": 14,
        "out_channels": 16,
        "kernel": 3,
        "expand": 3,
        "stride": 1,
        "act": "relu6",
        "squeeze_excite": False,
        "shortcut": True,
        "bn_eps": 1e-3,
    }
    return MBConvPiece(**fields | changes)  # type: ignore[arg-type]


def cell(*ops: str) -> CellPiece:
    return CellPiece(in_channels=16, size_px=8, ops=ops, bn_eps=1e-5)  # type: ignore[arg-type]


def bottleneck(size_px: int, stride: int, downsample: bool) -> BottleneckPiece:
    return BottleneckPiece(
        in_channels=24,
        size_px=size_px,
        mid_channels=8,
        out_channels=24,
        stride=stride,
        downsample=downsample,
        bn_eps=1e-5,
    )


def head(**changes: object) -> HeadPiece:
    fields: dict[str, object] = {
        "in_channels": 24,
        "size_px": 7,
        "feature_channels": 32,
        "last_channels": 0,
        "n_classes": 10,
        "act": "relu6",
        "bn_eps": 1e-3,
    }
    return HeadPiece(**fields | changes)  # type: ignore[arg-type]


C1, C3, SKIP, NONE, POOL = "nor_conv_1x1", "nor_conv_3x3", "skip_connect", "none", "avg_pool_3x3"

PIECES: dict[str, Piece] = {
    "conv": ConvPiece(
        in_channels=3, size_px=33, out_channels=16, kernel=3, stride=2, act="hswish", bn_eps=1e-5
    ),
    "conv-linear": ConvPiece(
        in_channels=3, size_px=16, out_channels=16, kernel=3, stride=1, act="none", bn_eps=1e-5
    ),
    "mbconv-residual": mbconv(),
    "mbconv-stride": mbconv(kernel=7, stride=2, size_px=13, out_channels=24, shortcut=False),
    "mbconv-gate": mbconv(kernel=5, expand=6, act="hswish", squeeze_excite=True, bn_eps=1e-5),
    "mbconv-plain": mbconv(expand=1, act="relu"),
    "skip": SkipPiece(in_channels=8, size_px=8),
    "stem": ResNetStemPiece(
        in_channels=3, size_px=32, mid_channels=8, out_channels=16, residual=True, bn_eps=1e-5
    ),
    "stem-short-odd": ResNetStemPiece(
        in_channels=3, size_px=26, mid_channels=8, out_channels=16, residual=False, bn_eps=1e-5
    ),
    "bottleneck": bottleneck(14, 1, downsample=False),
    "bottleneck-widen": bottleneck(14, 1, downsample=True),
    "bottleneck-stride": bottleneck(14, 2, downsample=True),
    # OFA-ResNet-50 at 208 px: 13 pixels, whose last pooling window is half empty.
    "bottleneck-stride-odd": bottleneck(13, 2, downsample=True),
    "head": head(),
    "head-v3": head(last_channels=48, act="hswish"),
    "head-cell": head(feature_channels=0, act="relu", pre_norm=True),
    "cell": cell(C3, NONE, C1, SKIP, POOL, NONE),
    "cell-full": cell(C3, C1, POOL, C3, SKIP, C1),
    "cell-skips": cell(*[SKIP] * 6),
    "cell-conv-of-zeros": cell(NONE, NONE, C3, NONE, C1, C3),
    "cell-dead-end": cell(C3, NONE, NONE, SKIP, NONE, NONE),
    "cell-none": cell(*[NONE] * 6),
    "reduction": ReductionPiece(in_channels=16, size_px=8, out_channels=32, stride=2, bn_eps=1e-5),
} | {op: CellOpPiece(in_channels=8, size_px=8, op=op, bn_eps=1e-5) for op in (C1, C3, POOL)}

SPACES = (
    "proxylessnas",
    "ofa-proxylessnas-w1.3",
    "ofa-mbv3-w1.0",
    "ofa-mbv3-w1.2",
    "ofa-resnet50",
    "nasbench201",
    "mobile-mini",
)


def sampled_networks(name: str, n: int):
    """Networks of a space, at a size that keeps the test short where the space has sizes."""
    small = {"nasbench201": None, "mobile-mini": None}.get(name, 96)
    space = get_space(name, small)
    rng = np.random.default_rng(7)
    return [(space, space.sample(rng)) for _ in range(n)]


def disturb_norms(module) -> None:
    """Give every batch norm statistics and an affine map that folding must not lose."""
    generator = torch.Generator().manual_seed(3)

    def uniform(low: float, high: float, like):
        return torch.rand(like.shape, generator=generator) * (high - low) + low

    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            with torch.no_grad():
                part.weight.copy_(uniform(0.5, 1.5, part.weight))
                part.bias.copy_(uniform(-0.3, 0.3, part.bias))
            part.running_mean.copy_(uniform(-0.3, 0.3, part.running_mean))
            part.running_var.copy_(uniform(0.5, 2.0, part.running_var))


def macs_by_hooks(graph: Graph, module) -> int:
    """Count multiply-accumulates in torch's own layers while an image passes."""
    total = 0

    def count(layer, _inputs, output) -> None:
        nonlocal total
        total += output.numel() * layer.weight[0].numel()

    hooks = [
        part.register_forward_hook(count)
        for part in module.modules()
        if isinstance(part, torch.nn.Conv2d | torch.nn.Linear)
    ]
    module(torch.zeros(1, *graph.inputs[0].shape))
    for hook in hooks:
        hook.remove()
    return total


def assert_three_ways_agree(graph: Graph) -> None:
    module = to_torch(graph).eval()
    assert sum(p.numel() for p in module.parameters()) == graph.params
    with torch.no_grad():
        assert macs_by_hooks(graph, module) == sum(node.macs for node in graph.live_nodes)
        disturb_norms(module)
        weights = weights_from_torch(graph, module)
        image = torch.randn(2, *graph.inputs[0].shape, generator=torch.Generator().manual_seed(5))
        expected = module(image).numpy()
        channels_last = module(image.to(memory_format=torch.channels_last)).numpy()
    model = to_onnx(graph, weights=weights, batch=2)
    onnx.checker.check_model(onnx.load_from_string(model), full_check=True)
    output = run_onnx(model, image.numpy())
    assert output.shape == expected.shape == (2, *graph.output_shape)
    largest = max(float(np.abs(expected).max()), 1e-30)
    assert np.abs(output - expected).max() <= RELATIVE_ERROR * largest
    assert np.abs(channels_last - expected).max() <= RELATIVE_ERROR * largest


@pytest.mark.parametrize("name", PIECES)
def test_block(name):
    graph = piece_graph(PIECES[name])
    assert piece_cost(PIECES[name]).macs == graph.macs
    assert piece_cost(PIECES[name]).params == graph.params
    assert PIECES[name].n_out_channels == graph.output_shape[0] or name.startswith("head")
    assert_three_ways_agree(graph)


@pytest.mark.parametrize("op", ["avg_pool", "max_pool"])
def test_a_pool_that_reaches_over_the_edge(op):
    builder = GraphBuilder("pool", (4, 9, 9))
    graph = builder.finish(builder.pool(builder.input, "pool", op, kernel=2, stride=2))
    assert graph.output_shape == (4, 5, 5)
    assert_three_ways_agree(graph)


def test_a_bias_before_a_batch_norm(monkeypatch):
    """Fresh memory may hold anything: a bias that is not drawn has to be set."""
    fresh = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *shape, **kind: fresh(*shape, **kind).fill_(7))
    builder = GraphBuilder("biased", (4, 9, 9))
    conv = builder.conv(builder.input, "conv", 6, kernel=3, bias=True, norm_eps=1e-3)
    graph = builder.finish(conv)
    assert_three_ways_agree(graph)
    module = to_torch(graph, seed=11).eval()
    image = np.random.default_rng(1).standard_normal((1, 4, 9, 9), np.float32)
    for model in (to_onnx(graph, seed=11), None):
        if model is None:
            with torch.no_grad():
                module.state_dict()["conv.conv.bias"].copy_(torch.arange(6.0))
            model = to_onnx(graph, weights=weights_from_torch(graph, module))
        with torch.no_grad():
            expected = module(torch.from_numpy(image)).numpy()
        output = run_onnx(model, image)
        assert np.abs(output - expected).max() <= RELATIVE_ERROR * np.abs(expected).max()


@pytest.mark.parametrize("name", SPACES)
def test_network(name):
    ((space, arch),) = sampled_networks(name, 1)
    graph = network_graph(space, arch)
    assert graph.live_nodes == graph.nodes  # so that hooks see all that the cost counts
    assert_three_ways_agree(graph)


@pytest.mark.parametrize("name", SPACES)
def test_cost_is_the_graphs(name):
    for space, arch in sampled_networks(name, 5):
        graph = network_graph(space, arch)
        cost = architecture_cost(space, arch)
        assert (cost.macs, cost.params) == (graph.macs, graph.params)


@pytest.mark.parametrize("name", SPACES)
def test_operator_names_begin_with_their_scope(name):
    ((space, arch),) = sampled_networks(name, 1)
    scopes = {placed.scope for placed in space.pieces(arch)}
    for node in network_graph(space, arch).nodes:
        assert node.name.split("/")[0] in scopes


@pytest.mark.parametrize("name", SPACES)
def test_drawn_weights_give_outputs_of_ordinary_size(name):
    ((space, arch),) = sampled_networks(name, 1)
    graph = network_graph(space, arch)
    image = np.random.default_rng(0).standard_normal((1, *graph.inputs[0].shape), np.float32)
    logits = run_onnx(to_onnx(graph), image)
    assert logits.shape == (1, space.n_classes)
    assert 0.02 < float(np.sqrt(np.mean(logits**2))) < 50


def test_torch_and_onnx_of_one_seed_are_one_function():
    graph = piece_graph(PIECES["mbconv-gate"])
    image = np.random.default_rng(1).standard_normal((1, *graph.inputs[0].shape), np.float32)
    with torch.no_grad():
        expected = to_torch(graph, seed=11).eval()(torch.from_numpy(image)).numpy()
    output = run_onnx(to_onnx(graph, seed=11), image)
    assert np.abs(output - expected).max() <= RELATIVE_ERROR * np.abs(expected).max()


def test_making_a_module_leaves_the_global_random_state_alone():
    before = torch.get_rng_state()
    to_torch(piece_graph(mbconv()), seed=4)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_module_trains():
    graph = piece_graph(head(last_channels=16))
    module = to_torch(graph)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    image = torch.randn(4, *graph.inputs[0].shape, generator=torch.Generator().manual_seed(0))
    module(image).square().mean().backward()
    torch.optim.SGD(module.parameters(), lr=0.1).step()
    assert all(p.grad is not None for p in module.parameters())
    changed = {n for n, v in module.state_dict().items() if not torch.equal(v, before[n])}
    assert changed == set(before)  # weights by the step, statistics by the forward pass
    mean = before["head.features.norm.running_mean"]
    batch_mean = torch.nn.functional.conv2d(image, before["head.features.conv.weight"]).mean(
        (0, 2, 3)
    )
    moved = module.state_dict()["head.features.norm.running_mean"]
    assert torch.allclose(moved, 0.9 * mean + 0.1 * batch_mean, atol=1e-5)


def test_parameters_are_named_after_nodes():
    names = dict(to_torch(piece_graph(PIECES["mbconv-gate"])).named_parameters())
    assert set(names) == {
        f"mbconv.{layer}.{part}"
        for layer in ("expand", "depthwise", "project")
        for part in ("conv.weight", "norm.weight", "norm.bias")
    } | {
        f"mbconv.se.{layer}.{part}" for layer in ("reduce", "expand") for part in ("weight", "bias")
    }


def test_without_torch_the_missing_package_is_named(monkeypatch):
    torch_net._module_class.cache_clear()
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'hwprof\[search\]'"):
        to_torch(piece_graph(mbconv()))


def test_weights_of_another_module_are_refused():
    graph = piece_graph(mbconv())
    with pytest.raises(ModelError, match=r"no parameters for 'mbconv/expand'"):
        weights_from_torch(graph, to_torch(piece_graph(mbconv(expand=1, act="relu"))))
    with pytest.raises(ModelError, match=r"has a weight of shape"):
        weights_from_torch(graph, to_torch(piece_graph(mbconv(kernel=5))))


def test_a_layer_named_after_a_scope_is_refused():
    """As a submodule it would hold the other layer, and torch would run both."""
    builder = GraphBuilder("nested", (4, 6, 6))
    x = builder.conv(builder.input, "branch", 4, norm_eps=1e-5)
    with builder.scope("branch"):
        x = builder.conv(x, "conv", 4)
    with pytest.raises(ModelError, match="'branch' of nested is an operator and the scope of"):
        to_torch(builder.finish(x))
