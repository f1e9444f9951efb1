"""Transfer to a new device: every column of a table of devices held out in turn.

    python tests/bench/bench_adapt.py ../shared/data --repeats 10

Each device is predicted from models of all the others (fitted to ``--donor-networks`` random
networks each) and ``--networks`` chosen networks of its own, judged on every network that is in
neither. One line a split, so that none is picked by hand; beside it the best single donor, and
random networks in place of the chosen ones (where those are not refused).

A second table says what can be reached at all: models fitted to all networks of the device itself
(a sum of effects; one without unused operators; terms for all pairs and triples of edges), and how
well the table repeats itself. Cells without the edge between the inner nodes are written twice
with these swapped, the same network: ``twins`` is the rank correlation of the two latencies, its
root about what a perfect prediction would have, ``noise_pct`` the standard deviation of one
latency around what twins have in common, of the mean.

A third table is of the models of ``--donor-networks`` networks, as ``hwprof predict`` fits them,
beside the sum of effects: root mean squared error over all other networks.
"""

from __future__ import annotations

import argparse
from itertools import combinations
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
from tests.bench.arguments import existing

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
        self.used_rows = design.rows(self.space.used_codes(self.codes))
        self.blocks = [d.columns for d in design.decisions]
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
        "pruned": float(model.drops_unused),
        "spearman_random": _random_ten(table, device, donors, drawn, rest),
    }


def _random_ten(table: Table, device: str, donors: Donors, drawn: Any, rest: Any) -> float:
    """Return the rank correlation from random networks; NaN where they span too little."""
    try:
        model = adapt_model(donors, table.samples(device, drawn))
    except DataError:
        return float("nan")
    return spearman(model.predict_encoded(table.codes[rest])[0], table.latency_s[device][rest])


def reachable(table: Table) -> pd.DataFrame:
    """Return the rank correlations of models of everything, and of cells with their twins."""
    parts = [table.rows[:, block] for block in table.blocks]
    products = {
        n: [_product([parts[i] for i in chosen]) for chosen in combinations(range(len(parts)), n)]
        for n in (2, 3)
    }
    pairs = np.hstack([table.rows, *products[2]])
    designs = {
        "sum": table.rows,
        "sum_used": table.used_rows,
        "pairs": pairs,
        "triples": np.hstack([pairs, *products[3]]),
    }
    first, second = _twins(table)
    found: dict[str, dict[str, float]] = {device: {} for device in table.latency_s}
    for name, X in designs.items():
        solve = np.linalg.pinv(X.T @ X, hermitian=True)
        for device, y in table.latency_s.items():
            found[device][name] = spearman(X @ (solve @ (X.T @ y)), y)
    for device, y in table.latency_s.items():
        both = np.concatenate([y[first], y[second]]), np.concatenate([y[second], y[first]])
        found[device]["twins"] = spearman(*both)
        found[device]["root_of_twins"] = float(np.sqrt(found[device]["twins"]))
        one_sd = float(np.std(y[first] - y[second]) / np.sqrt(2.0))
        found[device]["noise_pct"] = 100 * one_sd / float(y.mean())
    return pd.DataFrame(found).T


def _product(parts: list[Floats]) -> Floats:
    out = parts[0]
    for part in parts[1:]:
        out = (out[:, :, None] * part[:, None, :]).reshape(len(out), -1)
    return out


def _twins(table: Table) -> tuple[Any, Any]:
    """Return the rows of cells and of the same cells with the two inner nodes swapped."""
    rows = {tuple(codes): i for i, codes in enumerate(table.codes.tolist())}
    swapped = table.codes[:, [1, 0, 2, 3, 5, 4]]
    other = np.array([rows[tuple(codes)] for codes in swapped.tolist()])
    nothing = table.space.base_choices(table.space.slots[2]).index("none")
    first = np.flatnonzero((table.codes[:, 2] == nothing) & (other > np.arange(len(other))))
    return first, other[first]


def own_models(table: Table, fitted: Any, models: dict[str, AdditiveLatencyModel]) -> pd.DataFrame:
    """Return how models of a device's own networks predict the rest, terms beside plain sums."""
    rest = np.setdiff1d(np.arange(len(table.archs)), fitted)
    lines = []
    for device, model in models.items():
        actual = table.latency_s[device][rest]
        plain = AdditiveLatencyModel.fit(
            table.space, table.samples(device, fitted), interactions=False
        )
        line: dict[str, Any] = {"device": device, "unused run": not model.drops_unused}
        for name, found in (("sum", plain), ("model", model)):
            predicted, half = found.predict_encoded(table.codes[rest])
            error = predicted - actual
            line[f"{name} rmse_pct"] = 100 * np.sqrt(np.mean(error**2)) / actual.mean()
            line[f"{name} spearman"] = spearman(predicted, actual)
            line[f"{name} coverage"] = np.mean(np.abs(error) <= half)
        lines.append({**line, "terms": model.interaction or "none"})
    return pd.DataFrame(lines).set_index("device")


def main() -> None:
    """Print one line a device, and the mean over them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=existing)
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
    print(own_models(table, some, models).round(3).to_string(), end="\n\n")
    print(reachable(table).round(3).to_string(), end="\n\n")
    lines = []
    for device, actual in table.latency_s.items():
        others = [name for name in models if name != device]
        donors = Donors(models=tuple(models[name] for name in others))
        splits = [held_out(table, device, donors, args.networks, s) for s in range(args.repeats)]
        frame = pd.DataFrame(splits)
        lines.append(
            {
                "device": device,
                **frame.mean().to_dict(),
                "spearman_lowest": frame["spearman"].min(),
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
