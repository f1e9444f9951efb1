"""Numbers as people read them: a sensible unit, sensible digits, a true minus sign.

Everything inside the program is in SI units; these functions are only for display.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from hwprof.interval import Interval

NOTHING = "–"
"""Shown where there is no number."""

PERCENTILE_BY = "percentile by "
"""How an accuracy source's name begins that only ranks networks."""

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


class Scale(NamedTuple):
    """A display unit: ``factor`` is one such unit in SI units."""

    factor: float
    unit: str


_TIMES = (Scale(1.0, "s"), Scale(1e-3, "ms"), Scale(1e-6, "µs"), Scale(1e-9, "ns"))
_COUNTS = (Scale(1e12, "T"), Scale(1e9, "G"), Scale(1e6, "M"), Scale(1e3, "k"))
_BYTES = (
    Scale(2.0**40, "TiB"),
    Scale(2.0**30, "GiB"),
    Scale(2.0**20, "MiB"),
    Scale(2.0**10, "KiB"),
)


def time_scale(value_s: float) -> Scale:
    """Return the largest unit of time in which ``value_s`` is at least 1 (ns at the smallest)."""
    for scale in _TIMES:
        # 999.6 ms would be shown as 1000 ms: it is already the next unit's.
        if abs(value_s) >= 0.9995 * scale.factor:
            return scale
    return _TIMES[-1] if value_s else _TIMES[1]


def fixed(value: float, decimals: int, *, signed: bool = False) -> str:
    """Write a number with ``decimals`` places; never a negative zero."""
    text = f"{abs(value):.{decimals}f}"
    if float(text) == 0.0:
        return text
    if value < 0:
        return "−" + text
    return "+" + text if signed else text


def decimals_for(value: float, digits: int = 3) -> int:
    """Return the places after the point that leave ``value`` with ``digits`` significant digits."""
    if value == 0.0 or not math.isfinite(value):
        return 0
    # Rounding may carry into a new digit (9.996 → 10.0), which then needs one place fewer.
    exponent = int(f"{abs(value):.{digits - 1}e}".rpartition("e")[2])
    return max(0, digits - 1 - exponent)


def format_seconds(value_s: float | None, *, digits: int = 3, signed: bool = False) -> str:
    """Write a time: ``12.3 ms``, ``842 µs``; with its sign where it is a difference."""
    if value_s is None or not math.isfinite(value_s):
        return NOTHING
    scale = time_scale(value_s)
    value = value_s / scale.factor
    return f"{fixed(value, decimals_for(value, digits), signed=signed)} {scale.unit}"


def format_interval(interval: Interval | None, *, signed: bool = False) -> str:
    """Write a time with its interval: ``12.34 ms [12.29, 12.41]``."""
    if interval is None or not math.isfinite(interval.value):
        return NOTHING
    scale = time_scale(interval.value if not signed else max(map(abs, interval), default=0.0))
    scaled = Interval(*(v / scale.factor for v in interval))
    return _with_interval(scaled, scale.unit, signed=signed)


def format_spread(interval: Interval | None) -> str:
    """Write a time with half its interval's width, for sentences: ``39.6 ± 1.3 µs``."""
    if interval is None or not math.isfinite(interval.value):
        return "an unknown time"
    scale = time_scale(max(abs(interval.value), interval.half_width))
    value, half_width = interval.value / scale.factor, interval.half_width / scale.factor
    places = decimals_for(half_width, 2) if half_width else decimals_for(value)
    return f"{fixed(value, places)} ± {fixed(half_width, places)} {scale.unit}"


def format_points(interval: Interval | None, *, signed: bool = True) -> str:
    """Write a difference of accuracy: ``+0.42 pp [+0.31, +0.53]``."""
    if interval is None or not math.isfinite(interval.value):
        return NOTHING
    return _with_interval(interval, "pp", signed=signed, places=2)


def format_points_spread(interval: Interval) -> str:
    """Write a difference of accuracy with half its width, for sentences: ``+1.64 ± 0.23 points``."""
    half = interval.half_width
    places = min(4, decimals_for(half, 2) if half else decimals_for(interval.value, 2))
    return f"{fixed(interval.value, places, signed=True)} ± {fixed(half, places)} points"


def format_pct(value_pct: float | None, decimals: int = 2) -> str:
    """Write a percentage: ``76.31 %``."""
    if value_pct is None or not math.isfinite(value_pct):
        return NOTHING
    return f"{fixed(value_pct, decimals)} %"


def only_ranked(sources: Iterable[str]) -> bool:
    """Say whether all values are percentiles by a proxy: of accuracies nothing is known."""
    names = list(sources)
    return bool(names) and all(name.startswith(PERCENTILE_BY) for name in names)


def accuracy_title(sources: Iterable[str]) -> str:
    """Return what an axis of these sources' values is called."""
    return "percentile by a proxy (%)" if only_ranked(sources) else "top-1 accuracy (%)"


def format_share(share: float, decimals: int = 0) -> str:
    """Write a share of 1 as a percentage: 0.973 is ``97 %``."""
    return format_pct(100.0 * share, decimals)


def format_count(count: float | None) -> str:
    """Write a count of operations, parameters or networks: ``842``, ``4.31 M``, ``2.18×10¹⁹``."""
    if count is None or not math.isfinite(count):
        return NOTHING
    if abs(count) < 1000:
        return fixed(count, 0)
    if abs(count) >= 1e15:
        mantissa, _, exponent = f"{count:.2e}".partition("e")
        return f"{mantissa}×10{str(int(exponent)).translate(_SUPERSCRIPTS)}"
    scale = next((s for s in reversed(_COUNTS) if abs(count) < 999.5 * s.factor), _COUNTS[0])
    value = count / scale.factor
    return f"{fixed(value, decimals_for(value))} {scale.unit}"


def format_bytes(count: int | None) -> str:
    """Write a size in binary units: ``4.20 MiB``."""
    if count is None:
        return NOTHING
    for scale in _BYTES:
        if abs(count) >= scale.factor:
            value = count / scale.factor
            return f"{fixed(value, decimals_for(value))} {scale.unit}"
    return f"{count} B"


def format_duration(seconds: float) -> str:
    """Write how long something took: ``42 s``, ``20 min 34 s``, ``2 h 05 min``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _with_interval(interval: Interval, unit: str, *, signed: bool, places: int = 6) -> str:
    """Write value, unit and bounds with the places (so many at most) that the width supports."""
    half = interval.half_width
    if not math.isfinite(half) or half <= 0.0:
        places = min(places, decimals_for(interval.value))
        return f"{fixed(interval.value, places, signed=signed)} {unit}"
    # Two digits of the half-width say all there is to say about the value.
    places = min(places, decimals_for(half, 2))
    value, lo, hi = (fixed(v, places, signed=signed) for v in interval)
    return f"{value} {unit} [{lo}, {hi}]"
