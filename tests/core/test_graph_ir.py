"""The neutral graph and its builder: shapes, names, costs, and what is refused."""

import pytest

from hwprof.errors import SpaceError
from hwprof.graph import Graph, GraphBuilder


def test_a_convolution_keeps_same_padding_and_counts_exactly():
    builder = GraphBuilder("g", (6, 13, 13))
    graph = builder.finish(builder.conv("input", "c", 9, kernel=5, stride=2, groups=3))
    (node,) = graph.nodes
    assert node.shape == (9, 7, 7)
    assert node.padding == 2
    assert node.weight_shape == (9, 2, 5, 5)
    # Every output element sums 2 channels of 5×5.
    assert graph.macs == 9 * 7 * 7 * 2 * 25
    assert graph.params == 9 * 2 * 25


@pytest.mark.parametrize(
    ("bias", "norm_eps", "extra", "folded"),
    [(False, None, 0, False), (True, None, 4, True), (False, 1e-5, 8, True)],
)
def test_bias_and_norm_parameters(bias, norm_eps, extra, folded):
    builder = GraphBuilder("g", (3, 8, 8))
    graph = builder.finish(builder.conv("input", "c", 4, bias=bias, norm_eps=norm_eps))
    assert graph.params == 12 + extra
    assert graph.macs == 12 * 64  # neither bias nor norm is a multiply-accumulate
    assert graph.nodes[0].has_folded_bias is folded


def test_a_linear_layer_counts_its_weights_once():
    builder = GraphBuilder("g", (5, 4, 4))
    pooled = builder.flatten(builder.global_pool("input", "pool"), "flat")
    graph = builder.finish(builder.linear(pooled, "fc", 7))
    assert graph.output_shape == (7,)
    assert (graph.macs, graph.params) == (35, 42)


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "expected", "ceil"),
    [(8, 2, 2, 4, False), (13, 2, 2, 7, True), (13, 3, 2, 7, False), (8, 3, 1, 8, False)],
)
def test_a_pool_covers_the_edge(size, kernel, stride, expected, ceil):
    builder = GraphBuilder("g", (2, size, size))
    builder.pool("input", "p", "avg_pool", kernel=kernel, stride=stride)
    graph = builder.finish("p")
    assert graph.output_shape == (2, expected, expected)
    assert graph.nodes[0].ceil_mode is ceil


def test_scopes_come_first_in_names():
    builder = GraphBuilder("g", (2, 4, 4))
    with builder.scope("u0.l1"):
        with builder.scope("se"):
            assert builder.conv("input", "reduce", 2) == "u0.l1/se/reduce"
        assert builder.act("u0.l1/se/reduce", "relu6") == "u0.l1/se/reduce/relu6"
    assert builder.conv("input", "reduce", 2) == "reduce"


def test_no_activation_is_no_operator():
    builder = GraphBuilder("g", (2, 4, 4))
    assert builder.act("input", "none") == "input"


def test_a_graph_of_nothing_is_an_identity():
    graph: Graph = GraphBuilder("g", (2, 4, 4)).finish("input")
    assert [node.op for node in graph.nodes] == ["identity"]
    assert graph.output != graph.inputs[0].name
    assert graph.output_shape == (2, 4, 4)


def test_a_name_stands_once():
    builder = GraphBuilder("g", (2, 4, 4))
    builder.conv("input", "c", 2)
    with pytest.raises(SpaceError, match="two operators are named 'c'"):
        builder.conv("input", "c", 2)


def test_unequal_shapes_are_not_added():
    builder = GraphBuilder("g", (2, 4, 4))
    wider = builder.conv("input", "c", 3)
    with pytest.raises(SpaceError, match="a shortcut needs stride 1"):
        builder.add(wider, "input", "sum")


@pytest.mark.parametrize(
    ("kernel", "groups", "message"), [(4, 1, "the kernel is 4"), (3, 2, "2 groups do not divide 3")]
)
def test_impossible_convolutions_are_refused(kernel, groups, message):
    builder = GraphBuilder("g", (3, 4, 4))
    with pytest.raises(SpaceError, match=message):
        builder.conv("input", "c", 4, kernel=kernel, groups=groups)


def test_a_pool_that_cannot_keep_the_side_is_refused():
    """An even kernel with stride 1 has one place less than there are pixels."""
    builder = GraphBuilder("g", (4, 8, 8))
    with pytest.raises(SpaceError, match=r"p: no pool of kernel 2 and stride 1 makes \(8, 8\)"):
        builder.pool("input", "p", "max_pool", kernel=2, stride=1)


def test_an_activation_of_what_came_before_is_the_present_blocks_own():
    """A trace books operators by their scope: a block that begins with a ReLU pays for it."""
    builder = GraphBuilder("g", (2, 4, 4))
    with builder.scope("u0.l0"):
        x = builder.act(builder.conv("input", "c", 2), "relu")
    with builder.scope("u0.l1"):
        assert builder.act(x, "relu") == "u0.l1/relu"
        assert builder.act(x, "relu6") == "u0.l1/relu6"
        assert builder.act(x, "relu") == "u0.l1/relu_2"
