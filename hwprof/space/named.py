"""Published networks by name, with their literal widths.

Source: the released configurations of ProxylessNAS (Cai et al., ICLR 2019), which widen their
space: GPU by 1.35, CPU by 1.12, Mobile-14 by about 1.4; Mobile has a first unit of 32.
"""

from __future__ import annotations

from collections.abc import Mapping

from hwprof.space.architecture import SKIP, Architecture, Channels

_MOBILE = (
    "5/3 3/3 0 0 | 7/3 3/3 5/3 5/3 | 7/6 5/3 5/3 5/3 | 5/6 5/3 5/3 5/3 | 7/6 7/6 7/3 7/3 | 7/6"
)


def _released(
    blocks: str, stem: int, first: int, units: tuple[int, ...], head: int
) -> Architecture:
    """Return a network of ``kernel/expansion`` per layer (0: skip), units apart by ``|``."""
    return Architecture(
        space="proxylessnas",
        resolution_px=224,
        units=tuple(tuple(map(_block, unit.split())) for unit in blocks.split("|")),
        channels=Channels(stem=stem, first=first, units=units, head=head),
    )


def _block(text: str) -> str:
    if text == "0":
        return SKIP
    kernel, expansion = text.split("/")
    return f"mbconv_k{kernel}_e{expansion}"


NAMED_ARCHITECTURES: Mapping[str, Architecture] = {
    "proxyless-gpu": _released(
        "5/3 0 0 0 | 7/3 0 0 3/3 | 7/6 0 0 5/3 | 5/6 0 3/3 5/3 | 7/6 7/6 7/6 5/6 | 7/6",
        40,
        24,
        (32, 56, 112, 128, 256, 432),
        1728,
    ),
    "proxyless-cpu": _released(
        "3/6 3/3 3/3 3/3 | 3/6 3/3 3/3 5/3 | 3/6 0 0 3/3 | 5/6 3/3 3/3 3/3 | 5/6 5/3 5/3 3/3 | 5/6",
        40,
        24,
        (32, 48, 88, 104, 216, 360),
        1432,
    ),
    "proxyless-mobile": _released(_MOBILE, 32, 16, (32, 40, 80, 96, 192, 320), 1280),
    "proxyless-mobile-14": _released(_MOBILE, 48, 24, (40, 56, 112, 136, 256, 448), 1792),
}
