"""Published once-for-all supernets, written a second time from their definition.

Sources: Cai et al., ICLR 2020, and the modules of the public repository (``ofa_mbv3``,
``ofa_proxyless``, ``ofa_resnets``, ``dynamic_op``). Nothing here uses the code under test:
layouts are spelled out, and forward passes are plain functions of tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

State = dict[str, Tensor]
ACTS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "relu6": functional.relu6,
    "h_swish": functional.hardswish,
    "none": lambda x: x,
}


def divisible(value: float) -> int:
    found = max(8, int(value + 4) // 8 * 8)
    return found + 8 if found < 0.9 * value else found


@dataclass(frozen=True, kw_only=True)
class Mobile:
    """What the two mobile supernets differ in; widths are those after the width multiplier."""

    space: str
    stem: int
    first: int
    widths: tuple[int, ...]
    strides: tuple[int, ...]
    depths: tuple[int, ...]
    acts: tuple[str, ...]
    attention: tuple[bool, ...]
    eps: float
    stem_act: str
    first_act: str
    head_act: str
    features: int
    last: int

    def blocks(self) -> list[tuple[int, int, int, int]]:
        """Return (unit, layer, in, out) of every elastic block, in the file's order."""
        found, before = [], self.first
        for unit, (width, depth) in enumerate(zip(self.widths, self.depths, strict=True)):
            for layer in range(depth):
                found.append((unit, layer, before, width))
                before = width
        return found


def mbv3(name: str, stem: int, widths: tuple[int, ...], features: int, last: int) -> Mobile:
    return Mobile(
        space=name,
        stem=stem,
        first=stem,
        widths=widths,
        strides=(2, 2, 2, 1, 2),
        depths=(4,) * 5,
        acts=("relu", "relu", "h_swish", "h_swish", "h_swish"),
        attention=(False, True, False, True, True),
        eps=1e-5,
        stem_act="h_swish",
        first_act="relu",
        head_act="h_swish",
        features=features,
        last=last,
    )


MOBILES = {
    m.space: m
    for m in (
        mbv3("ofa-mbv3-w1.0", 16, (24, 40, 80, 112, 160), 960, 1280),
        mbv3("ofa-mbv3-w1.2", 24, (32, 48, 96, 136, 192), 1152, 1536),
        Mobile(
            space="ofa-proxylessnas-w1.3",
            stem=40,
            first=24,
            widths=(32, 56, 104, 128, 248, 416),
            strides=(2, 2, 2, 1, 2, 1),
            depths=(4, 4, 4, 4, 4, 1),
            acts=("relu6",) * 6,
            attention=(False,) * 6,
            eps=1e-3,
            stem_act="relu6",
            first_act="relu6",
            head_act="relu6",
            features=1664,
            last=0,
        ),
    )
}


class Writer:
    """Makes up tensors under which activations stay near one."""

    def __init__(self, seed: int) -> None:
        self.state: State = {}
        self._generator = torch.Generator().manual_seed(seed)

    def noise(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self._generator)

    def conv(self, name: str, *shape: int) -> None:
        fan_in = shape[1] * shape[2] * shape[3]
        self.state[f"{name}.weight"] = self.noise(*shape) * (2.0 / fan_in) ** 0.5

    def norm(self, name: str, channels: int) -> None:
        self.state[f"{name}.weight"] = 1.0 + 0.1 * self.noise(channels)
        self.state[f"{name}.bias"] = 0.1 * self.noise(channels)
        self.state[f"{name}.running_mean"] = 0.1 * self.noise(channels)
        self.state[f"{name}.running_var"] = 1.0 + 0.1 * self.noise(channels).abs()
        self.state[f"{name}.num_batches_tracked"] = torch.tensor(7)

    def linear(self, name: str, n_out: int, n_in: int) -> None:
        self.state[f"{name}.weight"] = self.noise(n_out, n_in) / n_in**0.5
        self.state[f"{name}.bias"] = self.noise(n_out)


def write_mobile(net: Mobile, seed: int = 0) -> State:
    """Return a state dict in the spelling of the released files."""
    w = Writer(seed)
    w.conv("first_conv.conv", net.stem, 3, 3, 3)
    w.norm("first_conv.bn", net.stem)
    first = "blocks.0.mobile_inverted_conv"
    w.conv(f"{first}.depth_conv.conv", net.stem, 1, 3, 3)
    w.norm(f"{first}.depth_conv.bn", net.stem)
    w.conv(f"{first}.point_linear.conv", net.first, net.stem, 1, 1)
    w.norm(f"{first}.point_linear.bn", net.first)
    for index, (unit, _, c_in, c_out) in enumerate(net.blocks(), start=1):
        block, mid = f"blocks.{index}.mobile_inverted_conv", divisible(c_in * 6)
        w.conv(f"{block}.inverted_bottleneck.conv.conv", mid, c_in, 1, 1)
        w.norm(f"{block}.inverted_bottleneck.bn.bn", mid)
        w.conv(f"{block}.depth_conv.conv.conv", mid, 1, 7, 7)
        w.state[f"{block}.depth_conv.conv.7to5_matrix"] = torch.eye(25) + 0.1 * w.noise(25, 25)
        w.state[f"{block}.depth_conv.conv.5to3_matrix"] = torch.eye(9) + 0.1 * w.noise(9, 9)
        w.norm(f"{block}.depth_conv.bn.bn", mid)
        if net.attention[unit]:
            squeezed = divisible(mid // 4)
            for part, shape in (("reduce", (squeezed, mid)), ("expand", (mid, squeezed))):
                w.conv(f"{block}.depth_conv.se.fc.{part}", *shape, 1, 1)
                w.state[f"{block}.depth_conv.se.fc.{part}.bias"] = w.noise(shape[0])
        w.conv(f"{block}.point_linear.conv.conv", c_out, mid, 1, 1)
        w.norm(f"{block}.point_linear.bn.bn", c_out)
    features = "final_expand_layer" if net.last else "feature_mix_layer"
    w.conv(f"{features}.conv", net.features, net.widths[-1], 1, 1)
    w.norm(f"{features}.bn", net.features)
    if net.last:
        w.conv("feature_mix_layer.conv", net.last, net.features, 1, 1)
    w.linear("classifier.linear", 1000, net.last or net.features)
    return w.state


def normed(state: State, name: str, x: Tensor, eps: float) -> Tensor:
    """Apply the first channels of a batch norm in evaluation mode."""
    n = x.shape[1]
    mean, var, gamma, beta = (
        state[f"{name}.{part}"][:n] for part in ("running_mean", "running_var", "weight", "bias")
    )
    return functional.batch_norm(x, mean, var, gamma, beta, False, 0.0, eps)


def kernel_of(state: State, name: str, channels: int, side: int) -> Tensor:
    """Return the depthwise kernels: 7×7 as stored, smaller ones through the matrices."""
    kernels = state[f"{name}.conv.weight"][:channels]
    if side <= 5:
        kernels = functional.linear(
            kernels[:, :, 1:6, 1:6].reshape(channels, 25), state[f"{name}.7to5_matrix"]
        ).reshape(channels, 1, 5, 5)
    if side == 3:
        kernels = functional.linear(
            kernels[:, :, 1:4, 1:4].reshape(channels, 9), state[f"{name}.5to3_matrix"]
        ).reshape(channels, 1, 3, 3)
    return kernels


def run_mobile(
    net: Mobile, state: State, x: Tensor, units: Sequence[Sequence[tuple[int, int]]]
) -> Tensor:
    """Run the sub-network whose units hold (kernel, expansion) pairs; return its logits."""
    eps = net.eps
    x = functional.conv2d(x, state["first_conv.conv.weight"], stride=2, padding=1)
    x = ACTS[net.stem_act](normed(state, "first_conv.bn", x, eps))
    first = "blocks.0.mobile_inverted_conv"
    y = functional.conv2d(x, state[f"{first}.depth_conv.conv.weight"], padding=1, groups=x.shape[1])
    y = ACTS[net.first_act](normed(state, f"{first}.depth_conv.bn", y, eps))
    y = functional.conv2d(y, state[f"{first}.point_linear.conv.weight"])
    y = normed(state, f"{first}.point_linear.bn", y, eps)
    # The public code gives the first block a shortcut where its widths agree, in MBv3 only.
    x = y + x if net.space.startswith("ofa-mbv3") else y
    for index, (unit, layer, c_in, c_out) in enumerate(net.blocks(), start=1):
        if layer >= len(units[unit]):
            continue
        (side, expansion), act = units[unit][layer], ACTS[net.acts[unit]]
        block, mid = f"blocks.{index}.mobile_inverted_conv", divisible(round(c_in * expansion))
        stride = net.strides[unit] if layer == 0 else 1
        y = functional.conv2d(x, state[f"{block}.inverted_bottleneck.conv.conv.weight"][:mid])
        y = act(normed(state, f"{block}.inverted_bottleneck.bn.bn", y, eps))
        kernels = kernel_of(state, f"{block}.depth_conv.conv", mid, side)
        y = functional.conv2d(y, kernels, stride=stride, padding=side // 2, groups=mid)
        y = act(normed(state, f"{block}.depth_conv.bn.bn", y, eps))
        if net.attention[unit]:
            gate, squeezed = y.mean((2, 3), keepdim=True), divisible(mid // 4)
            fc = f"{block}.depth_conv.se.fc"
            gate = functional.conv2d(
                gate,
                state[f"{fc}.reduce.weight"][:squeezed, :mid],
                state[f"{fc}.reduce.bias"][:squeezed],
            )
            gate = functional.conv2d(
                functional.relu(gate),
                state[f"{fc}.expand.weight"][:mid, :squeezed],
                state[f"{fc}.expand.bias"][:mid],
            )
            y = y * functional.relu6(gate + 3.0) / 6.0
        y = functional.conv2d(y, state[f"{block}.point_linear.conv.conv.weight"][:, :mid])
        y = normed(state, f"{block}.point_linear.bn.bn", y, eps)
        x = y + x if stride == 1 and c_in == c_out else y
    features = "final_expand_layer" if net.last else "feature_mix_layer"
    x = functional.conv2d(x, state[f"{features}.conv.weight"])
    x = ACTS[net.head_act](normed(state, f"{features}.bn", x, eps)).mean((2, 3), keepdim=True)
    if net.last:
        x = ACTS[net.head_act](functional.conv2d(x, state["feature_mix_layer.conv.weight"]))
    return functional.linear(
        x.flatten(1), state["classifier.linear.weight"], state["classifier.linear.bias"]
    )


RESNET_WIDTHS = ((168, 208, 256), (336, 408, 512), (664, 816, 1024), (1328, 1640, 2048))
RESNET_DEPTHS = (4, 4, 6, 4)
STEM_MIDDLE, STEM_OUT = (24, 24, 32), (40, 48, 64)


def resnet_blocks() -> list[tuple[int, int]]:
    """Return (unit, layer) of every block, in the file's order."""
    return [(u, layer) for u, depth in enumerate(RESNET_DEPTHS) for layer in range(depth)]


def write_resnet(seed: int = 0) -> State:
    """Return a state dict of the largest network, every layer being dynamic."""
    w = Writer(seed)
    for name, c_in, c_out in (
        ("input_stem.0", 3, 32),
        ("input_stem.1.conv", 32, 32),
        ("input_stem.2", 32, 64),
    ):
        w.conv(f"{name}.conv.conv", c_out, c_in, 3, 3)
        w.norm(f"{name}.bn.bn", c_out)
    before = 64
    for index, (unit, layer) in enumerate(resnet_blocks()):
        c_out = RESNET_WIDTHS[unit][2]
        mid = divisible(round(c_out * 0.35))
        shapes = {
            "conv1": (mid, before, 1, 1),
            "conv2": (mid, mid, 3, 3),
            "conv3": (c_out, mid, 1, 1),
        }
        if layer == 0:
            shapes["downsample"] = (c_out, before, 1, 1)
        for part, shape in shapes.items():
            w.conv(f"blocks.{index}.{part}.conv.conv", *shape)
            w.norm(
                f"blocks.{index}.{part}.bn.bn", c_out if part in ("conv3", "downsample") else mid
            )
        before = c_out
    w.linear("classifier.linear.linear", 1000, 2048)
    return w.state


def run_resnet(
    state: State,
    x: Tensor,
    ratios: Sequence[Sequence[float]],
    stem_depth: int,
    widths: Sequence[int],
) -> Tensor:
    """Run a sub-network; ``widths`` are indices: stem middle, stem out, four units."""

    def layer_of(x: Tensor, name: str, n_out: int, stride: int = 1) -> Tensor:
        weight = state[f"{name}.conv.conv.weight"][:n_out, : x.shape[1]]
        y = functional.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)
        return normed(state, f"{name}.bn.bn", y, 1e-5)

    middle, out = STEM_MIDDLE[widths[0]], STEM_OUT[widths[1]]
    x = functional.relu(layer_of(x, "input_stem.0", middle, stride=2))
    if stem_depth == 2:
        x = functional.relu(layer_of(x, "input_stem.1.conv", middle)) + x
    x = functional.relu(layer_of(x, "input_stem.2", out))
    x = functional.max_pool2d(x, 3, stride=2, padding=1)
    for index, (unit, layer) in enumerate(resnet_blocks()):
        if layer >= len(ratios[unit]):
            continue
        c_out = RESNET_WIDTHS[unit][widths[2 + unit]]
        mid = divisible(round(c_out * ratios[unit][layer]))
        stride = (1, 2, 2, 2)[unit] if layer == 0 else 1
        shortcut = x
        if layer == 0:
            shortcut = functional.avg_pool2d(x, stride, stride, ceil_mode=True)
            shortcut = layer_of(shortcut, f"blocks.{index}.downsample", c_out)
        y = functional.relu(layer_of(x, f"blocks.{index}.conv1", mid))
        y = functional.relu(layer_of(y, f"blocks.{index}.conv2", mid, stride=stride))
        x = functional.relu(layer_of(y, f"blocks.{index}.conv3", c_out) + shortcut)
    x = x.mean((2, 3))
    weight = state["classifier.linear.linear.weight"][:, : x.shape[1]]
    return functional.linear(x, weight, state["classifier.linear.linear.bias"])
