"""The design spaces that ship."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from hwprof.space.mbconv import MBConvLayout, MBConvSpace, UnitLayout, mbconv_names
from hwprof.space.nasbench201 import CellSpace
from hwprof.space.pieces import Activation
from hwprof.space.resnet50 import ResNet50Space
from hwprof.space.space import DesignSpace

KERNELS = (3, 5, 7)


def _proxylessnas() -> DesignSpace:
    """The ImageNet space of ProxylessNAS: 21 edges of full length, 15 of which may be skipped."""
    widths, strides = (24, 40, 80, 96, 192, 320), (2, 2, 2, 1, 2, 1)
    layers = (4, 4, 4, 4, 4, 1)
    return MBConvSpace.from_layout(
        MBConvLayout(
            name="proxylessnas",
            resolution_px=224,
            n_classes=1000,
            bn_eps=1e-3,
            stem_channels=32,
            stem_act="relu6",
            first_channels=16,
            first_act="relu6",
            first_shortcut=False,
            units=tuple(
                UnitLayout(
                    channels=channels,
                    stride=stride,
                    min_depth=depth,
                    max_depth=depth,
                    act="relu6",
                    candidates=mbconv_names(KERNELS, (3, 6)),
                    skip=True,
                )
                for channels, stride, depth in zip(widths, strides, layers, strict=True)
            ),
            head_channels=1280,
            head_act="relu6",
        )
    )


def _ofa_proxylessnas() -> DesignSpace:
    """Once-for-all's ProxylessNAS space at width 1.3 ("PN" in the block-profiling paper)."""
    widths, strides = (32, 56, 104, 128, 248, 416), (2, 2, 2, 1, 2, 1)
    depths = ((2, 4),) * 5 + ((1, 1),)
    return MBConvSpace.from_layout(
        MBConvLayout(
            name="ofa-proxylessnas-w1.3",
            resolution_px=224,
            n_classes=1000,
            bn_eps=1e-3,
            stem_channels=40,
            stem_act="relu6",
            first_channels=24,
            first_act="relu6",
            first_shortcut=False,
            units=tuple(
                UnitLayout(
                    channels=channels,
                    stride=stride,
                    min_depth=least,
                    max_depth=most,
                    act="relu6",
                    candidates=mbconv_names(KERNELS, (3, 4, 6)),
                )
                for channels, stride, (least, most) in zip(widths, strides, depths, strict=True)
            ),
            head_channels=1664,
            head_act="relu6",
        )
    )


def _ofa_mbv3(name: str, stem: int, widths: tuple[int, ...], head: int, last: int) -> DesignSpace:
    """Once-for-all's MobileNetV3 space; its two widths share all but the channels."""
    strides = (2, 2, 2, 1, 2)
    attention = (False, True, False, True, True)
    acts: tuple[Activation, ...] = ("relu", "relu", "hswish", "hswish", "hswish")
    return MBConvSpace.from_layout(
        MBConvLayout(
            name=name,
            resolution_px=224,
            n_classes=1000,
            bn_eps=1e-5,
            stem_channels=stem,
            stem_act="hswish",
            first_channels=stem,
            first_act="relu",
            first_shortcut=True,
            units=tuple(
                UnitLayout(
                    channels=channels,
                    stride=stride,
                    min_depth=2,
                    max_depth=4,
                    act=act,
                    candidates=mbconv_names(KERNELS, (3, 4, 6)),
                    squeeze_excite=squeeze_excite,
                )
                for channels, stride, squeeze_excite, act in zip(
                    widths, strides, attention, acts, strict=True
                )
            ),
            head_channels=head,
            head_act="hswish",
            last_channels=last,
        )
    )


def _ofa_mbv3_w10() -> DesignSpace:
    return _ofa_mbv3("ofa-mbv3-w1.0", 16, (24, 40, 80, 112, 160), 960, 1280)


def _ofa_mbv3_w12() -> DesignSpace:
    return _ofa_mbv3("ofa-mbv3-w1.2", 24, (32, 48, 96, 136, 192), 1152, 1536)


def _mobile_mini() -> DesignSpace:
    """A space of this project: small enough to train and profile on a laptop in minutes."""
    return MBConvSpace.from_layout(
        MBConvLayout(
            name="mobile-mini",
            resolution_px=32,
            n_classes=10,
            bn_eps=1e-5,
            stem_channels=16,
            stem_act="relu6",
            first_channels=16,
            first_act="relu6",
            first_shortcut=True,
            units=(
                _mini_unit(24, stride=2),
                _mini_unit(40, stride=2),
                _mini_unit(64, stride=1, act="hswish", squeeze_excite=True),
            ),
            head_channels=160,
            head_act="relu6",
        )
    )


def _mini_unit(
    channels: int, *, stride: int, act: Activation = "relu6", squeeze_excite: bool = False
) -> UnitLayout:
    return UnitLayout(
        channels=channels,
        stride=stride,
        min_depth=1,
        max_depth=3,
        act=act,
        candidates=mbconv_names(KERNELS, (3, 6)),
        squeeze_excite=squeeze_excite,
    )


CATALOG: Mapping[str, Callable[[], DesignSpace]] = {
    "proxylessnas": _proxylessnas,
    "ofa-proxylessnas-w1.3": _ofa_proxylessnas,
    "ofa-mbv3-w1.0": _ofa_mbv3_w10,
    "ofa-mbv3-w1.2": _ofa_mbv3_w12,
    "ofa-resnet50": ResNet50Space.base,
    "nasbench201": CellSpace.base,
    "mobile-mini": _mobile_mini,
}
