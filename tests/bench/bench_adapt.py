"""Transfer to a new device: every column of a table of devices held out in turn.

    python tests/bench/bench_adapt.py ../shared/data --repeats 10

Each device is predicted from models of all the others (fitted to ``--donor-networks`` random
networks each) and ``--networks`` chosen networks of its own, judged on every network that is in
neither. One line a split, so that none is picked by hand; beside it, what the best possible sum
of effects ranks (fitted to all networks: the bound of any additive model), the best single donor,
and random networks in place of the chosen ones
(where those are not refused).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hwprof.errors import DataError
from hwprof.estimate.crossval import spearman
from hwprof.estimate.design_matrix import DesignMatrix
from hwprof.estimate.latency_model import AdditiveLatencyModel
from hwprof.estimate.transfer import Donors, adapt_model, choose_networks
from hwprof.results import Sample
from hwprof.space import Architecture, get_space

Floats = np.ndarray[Any, np.dtype[np.float64]]


class Table:
    """NAS-Bench-201 cells with the latency of every device, seconds."""

    def __init__(self, folder: Path) -> None:
        archs = pd.read_csv(folder / "nb201_accuracy.csv.gz")[["index", "arch"]]
        frame = archs.merge(pd.read_csv(folder / "nb201_latency.csv.gz"), on="index")
        self.space = get_space("nasbench201")
        self.archs = [
            Architecture(space=self.space.name, resolution_px=32, cell=cell)
            for cell in frame["arch"]
        ]
        self.place = {arch.cell: i for i, arch in enumerate(self.archs)}
        design = DesignMatrix(self.space)
        self.codes = design.encode(self.archs)
        self.rows = design.rows(self.codes)
        self.latency_s: dict[str, Floats] = {
            name.removesuffix("_ms"): frame[name].to_numpy(np.float64) / 1e3
            for name in frame.columns
            if name.endswith("_ms")
        }

    def samples(self, device: str, rows: Any) -> list[Sample]:
        """Return the networks of some rows as they were measured on a device."""
        values = self.latency_s[device]
        return [Sample(arch=self.archs[i], latency_s=float(values[i])) for i in rows]


def held_out(table: Table, device: str, donors: Donors, n: int, seed: int) -> dict[str, float]:
    """Return the figures of one split."""
    rng = np.random.default_rng(seed)
    chosen = [table.place[a.cell] for a in choose_networks(donors, n, rng)]
    actual = table.latency_s[device]
    rest = np.setdiff1d(np.arange(len(actual)), chosen)
    model = adapt_model(donors, table.samples(device, chosen))
    predicted, half = model.predict_encoded(table.codes[rest])
    relative = np.abs(predicted / actual[rest] - 1.0)
    drawn = rng.choice(len(actual), n, replace=False)
    return {
        "spearman": spearman(predicted, actual[rest]),
        "median_rel_error": float(np.median(relative)),
        "within_10pct": float(np.mean(relative <= 0.10)),
        "coverage95": float(np.mean(np.abs(predicted - actual[rest]) <= half)),
        "spearman_random": _random_ten(table, device, donors, drawn, rest),
    }


def _random_ten(table: Table, device: str, donors: Donors, drawn: Any, rest: Any) -> float:
    """Return the rank correlation from random networks; NaN where they span too little."""
    try:
        model = adapt_model(donors, table.samples(device, drawn))
    except DataError:
        return float("nan")
    return spearman(model.predict_encoded(table.codes[rest])[0], table.latency_s[device][rest])


def main() -> None:
    """Print one line a device, and the mean over them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--networks", type=int, default=10)
    parser.add_argument("--donor-networks", type=int, default=900)
    parser.add_argument("--repeats", type=int, default=10)
    args = parser.parse_args()
    table = Table(args.data)
    some = np.random.default_rng(0).choice(len(table.archs), args.donor_networks, replace=False)
    models = {
        name: AdditiveLatencyModel.fit(table.space, table.samples(name, some))
        for name in table.latency_s
    }
    lines = []
    for device, actual in table.latency_s.items():
        others = [name for name in models if name != device]
        donors = Donors(models=tuple(models[name] for name in others))
        splits = [held_out(table, device, donors, args.networks, s) for s in range(args.repeats)]
        frame = pd.DataFrame(splits)
        best_sum = table.rows @ np.linalg.lstsq(table.rows, actual, rcond=None)[0]
        lines.append(
            {
                "device": device,
                **frame.mean().to_dict(),
                "spearman_lowest": frame["spearman"].min(),
                "best_sum": spearman(best_sum, actual),
                "best_donor": max(
                    spearman(models[name].predict_encoded(table.codes)[0], actual)
                    for name in others
                ),
            }
        )
    result = pd.DataFrame(lines).set_index("device")
    result.loc["mean"] = result.mean()
    print(result.round(3).to_string())


if __name__ == "__main__":
    main()
