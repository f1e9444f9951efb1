"""Accuracy sources: how they are opened, and tables."""

from __future__ import annotations

import gzip
import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import hwprof
from hwprof.api.runs import scored_samples
from hwprof.errors import DataError
from hwprof.search.scoring.accuracy import TableAccuracy, open_accuracy
from hwprof.space import Architecture, Slot, get_space
from hwprof.store import Run
from tests.search.mini import K3, K5, mini


class TestOpenAccuracy:
    @pytest.mark.parametrize("spec", ["", "table", "table:", "oracle:x.csv", "x.csv", "proxy:"])
    def test_other_kinds_are_refused(self, spec: str):
        with pytest.raises(DataError, match="expected supernet:CHECKPOINT, table:FILE"):
            open_accuracy(spec)

    def test_images_mean_nothing_to_a_table(self, tmp_path: Path):
        with pytest.raises(DataError, match="--data 'digits' means nothing"):
            open_accuracy("table:x.csv", data="digits")

    @pytest.mark.parametrize("spec", ["supernet:no.pt", "table:no.csv", "predictor:no.npz"])
    def test_a_missing_file_is_named(self, spec: str, tmp_path: Path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(DataError, match=spec.partition(":")[2]):
            open_accuracy(spec)


class Kernels:
    """A source of the caller's own: three points more for every wide kernel, one network unknown."""

    name, digest = "kernels", "own-1"

    def score(self, archs: Sequence[Architecture]) -> list[float | None]:
        wide = [sum(unit == K5 for unit in a.units) for a in archs]
        return [float("nan") if n == 3 else 60.0 + 3.0 * n for n in wide]


class TestOwnSource:
    ARCHS = tuple(mini(a, b, c) for a in (K3, K5) for b in (K3, K5) for c in (K3, K5))

    @pytest.fixture
    def table(self, tmp_path: Path) -> Path:
        quoted = [json.dumps(a.to_json()).replace('"', '""') for a in self.ARCHS]
        rows = [f'"{arch}",{1e-3 * (8 - i)}' for i, arch in enumerate(quoted)]
        file = tmp_path / "t.csv"
        file.write_text("\n".join(["arch,latency_s", *rows]) + "\n")
        return file

    def test_a_search_takes_it(self, table: Path):
        alive = {Slot(unit, 0): (*K3, *K5) for unit in range(3)}
        space = get_space("mobile-mini").restrict(alive, max_depth=(1, 1, 1))
        found = hwprof.search(
            space=space, latency=table, accuracy=Kernels(), strategy="random", max_evals=8
        )
        assert sorted(t.accuracy_pct for t in found.trials) == [60.0, *[63.0] * 3, *[66.0] * 3]
        assert {t.accuracy_source for t in found.trials} == {"kernels"}

    def test_effects_leave_out_what_it_does_not_know(self, table: Path, tmp_path: Path):
        hwprof.import_(table, space="mobile-mini", device_name="bench", out=tmp_path / "run")
        with Run.open(tmp_path / "run") as run:
            scored = {s.arch: s.accuracy_pct for s in scored_samples(run, Kernels())}
            known = run.accuracies("own-1")
        assert sorted(v for v in scored.values() if v is not None) == [
            60.0,
            *[63.0] * 3,
            *[66.0] * 3,
        ]
        assert len(known) == 7

    def test_something_else_is_refused(self):
        with pytest.raises(DataError, match=r"lacks name, digest or score .*AccuracySource"):
            open_accuracy(len)  # type: ignore[arg-type]
        with pytest.raises(DataError, match="--data 'digits' means nothing to 'kernels'"):
            open_accuracy(Kernels(), data="digits")


class TestTable:
    CELL = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|none~0|none~1|avg_pool_3x3~2|"

    @staticmethod
    def table(
        path: Path, rows: Sequence[tuple[str, object]], header: str = "arch,accuracy_pct"
    ) -> str:
        lines = [header]
        for arch, value in rows:
            quoted = arch.replace('"', '""')
            lines.append(f'"{quoted}",{value}')
        path.write_text("\n".join(lines) + "\n")
        return f"table:{path}"

    def test_joins_by_architecture_and_tells_how_many(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ):
        known, unknown = mini(K3, K3, K3), mini(K5, K3, K3)
        spaced = json.dumps(known.to_json(), indent=None)
        source = open_accuracy(self.table(tmp_path / "t.csv", [(spaced, 91.5)]))
        with caplog.at_level(logging.INFO):
            assert source.score([known, unknown]) == [91.5, None]
        assert "t.csv has 1 of 2 networks" in caplog.text
        assert source.name == "table:t.csv"
        assert isinstance(source, TableAccuracy)
        assert source.n_matched([known, unknown]) == 1

    def test_takes_cell_strings(self, tmp_path: Path):
        source = open_accuracy(self.table(tmp_path / "t.csv", [(self.CELL, 88.25)]))
        arch = Architecture(space="nasbench201", resolution_px=32, cell=self.CELL)
        assert source.score([arch]) == [88.25]

    def test_another_encoding_of_the_same_network_matches(self, tmp_path: Path):
        space = get_space("proxylessnas")
        first = space.sample(np.random.default_rng(0))
        units = list(first.units)
        units[0] = ("mbconv_k3_e3", "skip", "mbconv_k5_e6", "mbconv_k3_e3")
        a = replace(first, units=tuple(units))
        units[0] = ("mbconv_k3_e3", "mbconv_k5_e6", "skip", "mbconv_k3_e3")
        b = replace(first, units=tuple(units))
        source = open_accuracy(self.table(tmp_path / "t.csv", [(a.canonical_json(), 71.0)]))
        assert source.score([b]) == [71.0]
        # Its own line wins over the mean of its encodings.
        rows = [(a.canonical_json(), 71.0), (b.canonical_json(), 73.0)]
        source = open_accuracy(self.table(tmp_path / "u.csv", rows))
        units[0] = ("mbconv_k3_e3", "mbconv_k5_e6", "mbconv_k3_e3", "skip")
        third = replace(first, units=tuple(units))
        assert source.score([a, b, third]) == [71.0, 73.0, 72.0]

    def test_reads_gzip_and_skips_empty_accuracies(self, tmp_path: Path):
        rows = [(mini(K3, K3, K3).canonical_json(), 50), (mini(K5, K3, K3).canonical_json(), "")]
        self.table(tmp_path / "t.csv", rows)
        packed = tmp_path / "t.csv.gz"
        packed.write_bytes(gzip.compress((tmp_path / "t.csv").read_bytes()))
        source = open_accuracy(f"table:{packed}")
        assert source.score([mini(K3, K3, K3), mini(K5, K3, K3)]) == [50.0, None]

    def test_the_digest_follows_the_content(self, tmp_path: Path):
        arch = mini(K3, K3, K3).canonical_json()
        digests = [
            open_accuracy(self.table(tmp_path / f"{i}.csv", [(arch, v)])).digest
            for i, v in enumerate((50, 50, 51))
        ]
        assert digests[0] == digests[1] != digests[2]

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ([0.93, 0.5], "up to 0.93; expected percent"),
            ([1.0, 0.0], "up to 1; expected percent"),
            ([101, 50], "up to 101; expected percent"),
            (["good", 50], "line 2, accuracy_pct is 'good'"),
            ([-3, 50], "line 2, accuracy_pct is '-3'"),
            (["nan", 50], "line 2, accuracy_pct is 'nan'"),
            (["", ""], "no accuracy in any row"),
        ],
    )
    def test_wrong_values(self, values: list[object], message: str, tmp_path: Path):
        archs = [mini(K3, K3, K3), mini(K5, K3, K3)]
        rows = [(a.canonical_json(), v) for a, v in zip(archs, values, strict=True)]
        with pytest.raises(DataError, match=message):
            open_accuracy(self.table(tmp_path / "t.csv", rows))

    @pytest.mark.parametrize(
        ("arch", "message"),
        [
            ("{", "line 2, arch"),
            ('{"space": "nowhere", "resolution_px": 32, "units": []}', "nowhere"),
            (mini(K3, K3).canonical_json(), "line 2, arch: the architecture has 2 units"),
        ],
    )
    def test_wrong_architectures(self, arch: str, message: str, tmp_path: Path):
        with pytest.raises(DataError, match=message):
            open_accuracy(self.table(tmp_path / "t.csv", [(arch, 50)]))

    def test_a_network_twice(self, tmp_path: Path):
        row = (mini(K3, K3, K3).canonical_json(), 50)
        with pytest.raises(DataError, match=r"line 3, arch .* there twice"):
            open_accuracy(self.table(tmp_path / "t.csv", [row, row]))

    @pytest.mark.parametrize("header", ["network,accuracy_pct", "arch,top1"])
    def test_missing_columns(self, header: str, tmp_path: Path):
        rows = [(mini(K3, K3, K3).canonical_json(), 50)]
        with pytest.raises(DataError, match=r"has no column '(arch|accuracy_pct)'"):
            open_accuracy(self.table(tmp_path / "t.csv", rows, header))
