"""Fronts of several devices: told apart, never on one axis, judged only where intervals settle it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hwprof.interval import Interval
from hwprof.reports.html import _target_sentences
from hwprof.reports.place_figures import device_fronts_sketch
from hwprof.reports.places import (
    Place,
    Timed,
    crossed,
    gaps,
    panels,
    place_labels,
    tallies,
    tally_sentence,
)
from hwprof.reports.sketches import render
from hwprof.results import SearchResult, TargetOutcome, Trial
from hwprof.space import get_space, network_id

SPACE = get_space("mobile-mini")


def trials(n: int, seed: int, accuracies: tuple[float, ...], **changes) -> tuple[Trial, ...]:
    rng = np.random.default_rng(seed)
    return tuple(
        replace(
            Trial(
                arch=SPACE.sample(rng),
                accuracy_pct=accuracies[i],
                accuracy_source="table:a.csv",
                latency_s=1e-3 * (i + 1),
                latency_source="measured",
                macs=1,
                params=1,
            ),
            **changes,
        )
        for i in range(n)
    )


def search(front: tuple[Trial, ...], *, confirmed: bool = True) -> SearchResult:
    return SearchResult(
        space=SPACE.name,
        reduced=False,
        strategy="nsga2",
        seed=0,
        device="cpu",
        front=front,
        finalists=front,
        trials=front,
        confirmed=confirmed,
        ledger={},
    )


def timed(value_ms: float, half_ms: float = 0.1) -> Timed:
    level = Interval(value_ms / 1e3, (value_ms - half_ms) / 1e3, (value_ms + half_ms) / 1e3)
    return Timed(level=level, verdict="clean")


def two_places(**foreign: Timed | None) -> tuple[Place, Place]:
    """A host with one network of 70 % at 2 ms; a guest with networks of 60, 70 and 80 %."""
    (own,) = trials(1, 0, (70.0,))
    low, same, high = trials(3, 1, (60.0, 70.0, 80.0))
    levels = {network_id(own.arch): timed(2.0)}
    for trial, name in ((low, "low"), (same, "same"), (high, "high")):
        if (found := foreign.get(name)) is not None:
            levels[network_id(trial.arch)] = found
    host = Place(label="host", digest="h", searches=(search((own,)),), timed=levels)
    guest = Place(label="guest", digest="g", searches=(search((low, same, high)),))
    return host, guest


def outcomes(places: tuple[Place, ...]) -> dict[float, str]:
    return {r.trial.accuracy_pct: r.cells[0][1] for r in crossed(places) if r.place is places[1]}


BASE = {"device": "cpu", "hardware": "Xeon", "batch": 1, "threads": 1, "kernel": "6.1"}


class TestLabels:
    def test_a_device_of_its_own_is_called_by_its_name(self):
        assert place_labels([BASE, {**BASE, "device": "cuda"}]) == ("cpu", "cuda")

    def test_batches_and_machines_of_one_name_are_told_apart(self):
        labels = place_labels([BASE, {**BASE, "batch": 8}])
        assert labels == ("cpu (batch 1)", "cpu (batch 8)")
        labels = place_labels([BASE, {**BASE, "hardware": "EPYC", "kernel": "6.8"}])
        assert labels == ("cpu (Xeon)", "cpu (EPYC)")
        labels = place_labels(
            [BASE, {**BASE, "hardware": "EPYC", "batch": 8}, {**BASE, "batch": 8}]
        )
        assert labels == ("cpu (batch 1)", "cpu (batch 8, EPYC)", "cpu (batch 8, Xeon)")

    def test_no_two_places_have_one_label(self):
        odd = [
            {**BASE, "batch": b, "threads": t, "os": o}
            for b, t, o in ((1, 1, "a"), (2, 2, "a"), (1, 1, "b"))
        ]
        assert len(set(place_labels(odd))) == 3

    def test_an_emulator_is_marked(self):
        assert place_labels([{**BASE, "emulated": True}]) == ("cpu EMULATED",)


class TestOutcomes:
    @pytest.mark.parametrize(
        ("accuracy", "name", "level_ms", "outcome"),
        [
            (70.0, "same", 3.0, "beaten"),
            (60.0, "low", 2.3, "beaten"),
            (60.0, "low", 2.1, "undecided"),  # intervals overlap
            (60.0, "low", 1.0, "undecided"),  # faster, less accurate
            (80.0, "high", 3.0, "undecided"),  # slower, more accurate
            (80.0, "high", 1.0, "wins"),
            (70.0, "same", 1.0, "wins"),
        ],
    )
    def test_follow_from_accuracy_and_intervals(self, accuracy, name, level_ms, outcome):
        assert outcomes(two_places(**{name: timed(level_ms)}))[accuracy] == outcome

    @pytest.mark.parametrize(
        ("workers", "outcome"), [({"w1", "w7"}, "beaten"), ({"w2", "w3"}, "undecided")]
    )
    def test_of_two_that_took_turns_narrower_intervals_decide(self, workers, outcome):
        """Those for other sessions overlap, those within the session do not."""
        host, guest = two_places(same=timed(2.15))

        def narrowed(found, names):
            half_s = 0.5 * found.level.half_width
            value = found.level.value
            beside = Interval(value, value - half_s, value + half_s)
            return replace(found, beside=beside, workers=frozenset(names))

        own, foreign = host.timed
        levels = {
            own: narrowed(host.timed[own], {"w0", "w1"}),
            foreign: narrowed(host.timed[foreign], workers),
        }
        assert outcomes((replace(host, timed=levels), guest))[70.0] == outcome

    def test_what_was_not_timed_or_failed_has_no_winner(self):
        found = outcomes(two_places(low=Timed(failure="refused: no")))
        assert found == {60.0: "failed", 70.0: "not timed", 80.0: "not timed"}

    def test_accuracies_of_other_sources_are_not_ranked(self):
        host, guest = two_places(same=timed(3.0))
        (own,) = host.searches[0].front
        other = replace(host, searches=(search((replace(own, accuracy_source="table:b.csv"),)),))
        assert outcomes((other, guest))[70.0] == "not compared"
        assert any("several sources" in text for text in gaps((other, guest)))

    def test_a_network_of_both_fronts_is_the_hosts_own(self):
        host, guest = two_places()
        both = replace(guest, searches=(search(host.searches[0].front),))
        assert set(outcomes((host, both)).values()) == {"own"}
        assert tallies((host, both)) == ()

    def test_are_counted_and_said(self):
        host, guest = two_places(low=timed(3.0), same=timed(3.0), high=timed(3.0))
        (tally,) = tallies((host, guest))
        assert (tally.n, tally.beaten, tally.wins, tally.undecided) == (3, 2, 0, 1)
        assert tally_sentence(tally).endswith("searching for the device paid.")
        (won,) = tallies(two_places(high=timed(1.0)))
        assert tally_sentence(won).endswith("searching for the other device did better.")
        (open_,) = tallies(two_places(high=timed(3.0)))
        assert tally_sentence(open_).endswith("nothing is settled.")
        (mixed,) = tallies(two_places(low=timed(3.0), high=timed(1.0)))
        assert tally_sentence(mixed).endswith("neither search is better throughout.")

    def test_what_is_missing_is_named_with_the_command(self):
        host, guest = two_places(low=timed(3.0))
        on_host, on_guest = gaps((host, guest))
        assert on_host.startswith("2 of the 4 networks were not timed on host: hwprof retime")
        assert on_guest.startswith("4 of the 4 networks were not timed on guest")

    def test_the_command_names_the_options_of_the_place(self):
        """Without them it would time on another place."""
        host, guest = two_places()
        eight = replace(host, facts={**BASE, "batch": 8, "threads": 4})
        (text, _) = gaps((eight, guest))
        assert "hwprof retime SEARCH… --device cpu --batch 8 --threads 4 --out RUN" in text


class TestPanels:
    def test_each_place_has_an_axis_of_measured_or_of_predicted_points(self):
        host, guest = two_places(low=timed(3.0))
        unsure = replace(
            guest,
            searches=(
                search(trials(2, 5, (50.0, 55.0), latency_source="predicted"), confirmed=False),
            ),
        )
        first, second = panels((host, guest))[0], panels((host, unsure))[1]
        assert first.measured
        assert [(s.guest, len(s.points)) for s in first.series] == [("host", 1), ("guest", 1)]
        assert [p.latency.value for p in first.series[1].points] == [3.0e-3]
        assert not second.measured
        assert [s.guest for s in second.series] == ["guest"]

    def test_confirmed_searches_hide_unconfirmed_ones_of_their_place(self):
        sure, unsure = trials(1, 0, (70.0,)), trials(1, 2, (75.0,), latency_source="predicted")
        mixed = Place(
            label="p",
            digest="d",
            searches=(search(sure), search(unsure, confirmed=False)),
            timed={network_id(sure[0].arch): timed(2.0)},
        )
        (panel,) = panels((mixed,))
        assert [len(s.points) for s in panel.series] == [1]

    def test_are_drawn_with_their_own_axes(self, small_data):
        host, guest = two_places(low=timed(3.0))
        unsure = replace(guest, searches=(replace(guest.searches[0], confirmed=False),))
        sketch = device_fronts_sketch(replace(small_data, places=(host, unsure)))
        assert sketch is not None
        svg = render("device_fronts", sketch, emulated=False).svg
        assert "latency, measured there (ms)" in svg
        assert "latency, predicted (ms)" in svg
        assert ">guest: unconfirmed<" in svg
        assert device_fronts_sketch(replace(small_data, places=())) is None


def test_targets_of_other_devices_are_named_after_them(small_data):
    host, guest = two_places()
    (own,) = trials(1, 0, (70.0,))
    outcome = TargetOutcome(
        name="recompute-target-t2ms",
        arch=own.arch,
        target_s=2e-3,
        expected_s=1e-3,
        argmax_s=1e-3,
        predicted_s=2e-3,
        is_limiting=False,
        accuracy_pct=71.0,
        faster=own,
    )
    aimed = replace(guest.searches[0], targets=(outcome,))
    data = replace(
        small_data,
        full_searches=host.searches,
        reduced_searches=(),
        places=(host, replace(guest, searches=(aimed,))),
    )
    (text,) = _target_sentences(data)
    assert text.startswith("guest: Target ")
    assert "predicted, not measured (0.0 %), within 5 % of the target" in text
    assert text.endswith("measured with 70.00 %, against 71.00 % of the derived network.")
    moved = replace(data, full_searches=(*host.searches, aimed))
    assert [t.startswith("Target ") for t in _target_sentences(moved)] == [True]
