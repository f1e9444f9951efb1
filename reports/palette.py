"""Colours that people with colour-blindness can tell apart, and how effects become colours.

Series colours are from Okabe and Ito's palette (2008). Effects run from orange (bad for the
user: slower, less accurate) through white to blue (good).
"""

from __future__ import annotations

INK = "#1d232a"
MUTED = "#67707b"
GRID = "#d9dee4"
PAPER = "#ffffff"

GOOD = (31, 95, 165)
BAD = (200, 92, 0)

FULL = "#c85c00"
REDUCED = "#1f5fa5"
ACCENT = "#009e73"

STRONGEST = 0.62
"""Opacity of the extreme colours, low enough that ink stays readable on them."""


def effect_rgba(goodness: float) -> tuple[int, int, int, float]:
    """Return red, green, blue (0..255) and opacity (0..1) for -1 (worst) to 1 (best)."""
    colour = GOOD if goodness >= 0 else BAD
    return (*colour, STRONGEST * min(1.0, abs(goodness)))


def effect_css(goodness: float) -> str:
    """Return the colour for a style sheet; it works on light and on dark paper."""
    red, green, blue, opacity = effect_rgba(goodness)
    return f"rgb({red} {green} {blue} / {opacity:.3f})"


def effect_hex(goodness: float) -> str:
    """Return the colour as it looks on white paper."""
    *colour, opacity = effect_rgba(goodness)
    mixed = (round(255 + opacity * (c - 255)) for c in colour)
    return "#" + "".join(f"{c:02x}" for c in mixed)
