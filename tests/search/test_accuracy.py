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

from hwprof.errors import DataError
from hwprof.search.scoring.accuracy import TableAccuracy, open_accuracy
from hwprof.space import Architecture, get_space
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
