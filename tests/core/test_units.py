from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwprof.interval import Interval
from hwprof.units import (
    accuracy_title,
    decimals_for,
    format_bytes,
    format_count,
    format_duration,
    format_interval,
    format_pct,
    format_points,
    format_points_spread,
    format_seconds,
    format_share,
    format_spread,
)

UNITS_S = {"s": 1.0, "ms": 1e-3, "µs": 1e-6, "ns": 1e-9}


@pytest.mark.parametrize(
    ("value_s", "text"),
    [
        (12.345, "12.3 s"),
        (0.0123456, "12.3 ms"),
        (842e-6, "842 µs"),
        (3.21e-9, "3.21 ns"),
        (0.9996, "1.00 s"),
        (9.996e-3, "10.0 ms"),
        (999.4e-6, "999 µs"),
        (0.0, "0 ms"),
        (-0.0015, "−1.50 ms"),
        (None, "–"),
        (math.nan, "–"),
        (math.inf, "–"),
    ],
)
def test_times_take_the_unit_that_reads_well(value_s, text):
    assert format_seconds(value_s) == text


@pytest.mark.parametrize(
    ("interval", "text"),
    [
        (Interval(1.6449, 1.4149, 1.8749), "+1.64 ± 0.23 points"),
        (Interval(12.345, 12.322, 12.368), "+12.345 ± 0.023 points"),
        (Interval(-0.5, -2.0, 1.0), "−0.5 ± 1.5 points"),
        (Interval(0.25, 0.25, 0.25), "+0.25 ± 0.00 points"),
    ],
)
def test_an_accuracy_is_written_as_finely_as_it_is_known(interval, text):
    assert format_points_spread(interval) == text


def test_a_difference_shows_its_sign():
    assert format_seconds(4e-4, signed=True) == "+400 µs"
    assert format_seconds(-4e-4, signed=True) == "−400 µs"
    assert format_seconds(0.0, signed=True) == "0 ms"


@given(st.floats(min_value=1e-8, max_value=1e3))
def test_a_time_reads_back_within_its_three_digits(value_s):
    number, unit = format_seconds(value_s).split(" ")
    assert float(number) * UNITS_S[unit] == pytest.approx(value_s, rel=5.1e-3)
    assert 1.0 <= float(number) < 1000.0 or unit == "s"


@given(st.floats(min_value=1e-6, max_value=1e6), st.integers(min_value=1, max_value=4))
def test_decimals_leave_the_digits_asked_for(value, digits):
    places = decimals_for(value, digits)
    text = f"{value:.{places}f}"
    if places:
        assert len(text.replace(".", "").lstrip("0")) == digits


def test_an_interval_has_the_digits_its_width_supports():
    assert format_interval(Interval(12.344e-3, 12.29e-3, 12.41e-3)) == "12.344 ms [12.290, 12.410]"
    assert format_interval(Interval(12.344e-3, 11.9e-3, 12.8e-3)) == "12.34 ms [11.90, 12.80]"
    assert format_interval(Interval(12.344e-3, 2e-3, 22e-3)) == "12 ms [2, 22]"


def test_a_difference_near_zero_takes_the_unit_of_its_interval():
    text = format_interval(Interval(1e-8, -2.1e-3, 2.1e-3), signed=True)
    assert text == "0.0 ms [−2.1, +2.1]"


@pytest.mark.parametrize(
    ("interval_s", "text"),
    [
        (Interval(39.6e-6, 38.3e-6, 40.9e-6), "39.6 ± 1.3 µs"),
        (Interval(703e-9, 33e-9, 1373e-9), "703 ± 670 ns"),
        (Interval(-12e-3, -13e-3, -11e-3), "−12.0 ± 1.0 ms"),
        (Interval(5e-3, 5e-3, 5e-3), "5.00 ± 0.00 ms"),
    ],
)
def test_a_spread_is_written_without_powers_of_ten(interval_s, text):
    assert format_spread(interval_s) == text


def test_an_interval_without_width_is_a_number():
    assert format_interval(Interval(5e-3, 5e-3, 5e-3)) == "5.00 ms"
    assert format_interval(None) == "–"


def test_accuracy_differences_are_in_points_to_a_hundredth():
    assert format_points(Interval(0.123456, 0.1230, 0.1240)) == "+0.12 pp [+0.12, +0.12]"
    assert format_points(Interval(-0.4, -1.9, 1.1)) == "−0.4 pp [−1.9, +1.1]"
    assert format_points(None) == "–"


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (842, "842"),
        (999, "999"),
        (1000, "1.00 k"),
        (999_999, "1.00 M"),
        # Parameters and MACs of OFA-MBv3 w1.2, everything largest (block-profiling golden row L).
        (10_701_632, "10.7 M"),
        (843_101_040, "843 M"),
        # 7371 ** 5 architectures of one OFA-MBv3 space.
        (7371**5, "2.18×10¹⁹"),
        (None, "–"),
    ],
)
def test_counts(count, text):
    assert format_count(count) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.00 KiB"), (4_404_019, "4.20 MiB"), (None, "–")],
)
def test_sizes_are_binary(size, text):
    assert format_bytes(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (3.14, "3.1 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (1234.4, "20 min 34 s"),
        (7500, "2 h 05 min"),
    ],
)
def test_durations(seconds, text):
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("sources", "title"),
    [
        (["percentile by proxy:macs", "percentile by proxy:naswot"], "percentile by a proxy (%)"),
        (["percentile by proxy:macs", "table:a.csv"], "top-1 accuracy (%)"),
        ([], "top-1 accuracy (%)"),
    ],
)
def test_an_axis_says_whether_its_values_are_accuracies(sources, title):
    assert accuracy_title(sources) == title


def test_percentages():
    assert format_pct(76.314) == "76.31 %"
    assert format_pct(None) == "–"
    assert format_share(0.973) == "97 %"
