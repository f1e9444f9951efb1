"""The design spaces that ship, and how to get one by name."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from functools import lru_cache

from hwprof.errors import SpaceError, either
from hwprof.space.architecture import Architecture
from hwprof.space.mbconv import MBConvLayout, MBConvSpace, UnitLayout, mbconv_names
from hwprof.space.nasbench201 import CellSpace
from hwprof.space.own import ENVIRONMENT, own_space, own_space_names
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


def space_names() -> tuple[str, ...]:
    """Return the names of the design spaces that ship, then those of the user's own."""
    return (*CATALOG, *own_space_names())


def get_space(name_or_path: str, resolution_px: int | None = None) -> DesignSpace:
    """Return a design space by name, or the one of a ``.yaml`` file, reduced or the user's own.

    Args:
        name_or_path: a name that :func:`space_names` lists, or the path of a file.
        resolution_px: side of the input; without it the space's own (224, or 32 for CIFAR).

    Raises:
        SpaceError: no such space, or a file that is none.
    """
    if name_or_path.endswith((".yaml", ".yml")):
        from hwprof.space.reading import load_space_file

        space = load_space_file(name_or_path)
        return space if resolution_px is None else space.at_resolution(resolution_px)
    return _named(name_or_path, resolution_px)


def space_of(arch: Architecture) -> DesignSpace:
    """Return the whole space that ``arch`` names, at its resolution.

    Raises:
        SpaceError: no such space.
    """
    return _named(arch.space, arch.resolution_px)


def _named(name: str, resolution_px: int | None) -> DesignSpace:
    if name in CATALOG:
        return _registered(name, resolution_px)
    space = own_space(name)
    if space is None:
        known = space_names()
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"expected {either(known)}"
        raise SpaceError(
            f"unknown design space {name!r}: {hint} (a reduced space is given as a .yaml file; "
            f"one of your own too, or by {ENVIRONMENT}=my_space.yaml)"
        )
    return space if resolution_px is None else space.at_resolution(resolution_px)


@lru_cache(maxsize=64)
def _registered(name: str, resolution_px: int | None) -> DesignSpace:
    space = CATALOG[name]()
    return space if resolution_px is None else space.at_resolution(resolution_px)
