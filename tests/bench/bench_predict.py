"""Architectures a second through the latency model: encoded, as objects, one by one.

    python tests/bench/bench_predict.py [--table ../shared/data/note10_ofa_mbv3_w12_blocks.csv.gz]

*encoded* predicts from integer codes, *objects* from architectures (encoding included), *one by
one* calls ``predict_s`` for each. Every row gives latency and half-width of all networks; the best
of ``--repeats``. ``proxylessnas`` is fitted to 600 made-up measurements; ``ofa-mbv3-w1.2`` is a
table of blocks: the one given, or a made-up one. Speed does not depend on the values. The bar is
100,000 a second. Run it on an otherwise idle machine, on one thread (OMP_NUM_THREADS=1).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from hwprof.api.runs import latency_model
from hwprof.estimate.block_table import table_model
from hwprof.estimate.latency_model import AdditiveLatencyModel
from hwprof.importing import import_csv
from hwprof.results import Sample
from hwprof.space import Architecture, DesignSpace, get_space
from hwprof.store import ImportedBlock

ONE_BY_ONE = 2_000


def sampled(space: DesignSpace, n: int) -> list[Architecture]:
    rng = np.random.default_rng(0)
    return [space.sample(rng) for _ in range(n)]


def fitted(space: DesignSpace) -> AdditiveLatencyModel:
    """Fit a model to networks whose latency is made up: additive, with noise."""
    rng = np.random.default_rng(1)
    archs = sampled(space, 600)
    cost = 1e-4 * rng.random((len(space.slots), 16))
    codes = space.encode_many(archs)
    latency = 5e-3 + cost[np.arange(len(space.slots)), codes].sum(axis=1)
    latency *= 1.0 + 0.01 * rng.standard_normal(len(archs))
    pairs = zip(archs, latency.tolist(), strict=True)
    return AdditiveLatencyModel.fit(space, [Sample(arch=a, latency_s=v) for a, v in pairs])


def made_up_table(space: DesignSpace) -> AdditiveLatencyModel:
    rng = np.random.default_rng(2)
    lines = [(s.unit, s.layer, block) for s in space.slots for block in space.choices(s)]
    return table_model(
        space,
        [
            ImportedBlock(
                resolution_px=space.resolution_px,
                unit=unit,
                layer=layer,
                block=block,
                latency_s=float(1e-3 * rng.random()),
                sd_s=1e-5,
                count=10,
            )
            for unit, layer, block in [*lines, (None, None, "fixed")]
        ],
    )


def given_table(path: Path, space: DesignSpace) -> AdditiveLatencyModel:
    with tempfile.TemporaryDirectory() as folder:
        import_csv(path, space, "table", Path(folder) / "run").close()
        return latency_model(Path(folder) / "run")[0]


def rate(work: Callable[[], object], n: int, repeats: int) -> float:
    """Return networks a second in the fastest of ``repeats``."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return n / min(times)


def one_by_one(model: AdditiveLatencyModel, archs: Sequence[Architecture]) -> None:
    for arch in archs:
        model.predict_s(arch)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", type=Path)
    parser.add_argument("--networks", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    proxyless, mbv3 = get_space("proxylessnas"), get_space("ofa-mbv3-w1.2")
    models = {
        "proxylessnas, fitted": fitted(proxyless),
        "ofa-mbv3-w1.2, block table": (
            given_table(arguments.table, mbv3) if arguments.table else made_up_table(mbv3)
        ),
    }
    print(f"{'architectures a second':<28}{'encoded':>14}{'objects':>14}{'one by one':>14}")
    for name, model in models.items():
        archs = sampled(model.space, arguments.networks)
        codes = model.space.encode_many(archs)
        few = archs[:ONE_BY_ONE]
        # Tables are made on first use.
        model.predict_encoded(codes[:1])
        rates = (
            rate(lambda m=model, c=codes: m.predict_encoded(c), len(codes), arguments.repeats),  # type: ignore[misc]
            rate(lambda m=model, a=archs: m.predict_many(a), len(archs), arguments.repeats),  # type: ignore[misc]
            rate(lambda m=model, a=few: one_by_one(m, a), len(few), arguments.repeats),  # type: ignore[misc]
        )
        print(f"{name:<28}" + "".join(f"{value:>14,.0f}" for value in rates))


if __name__ == "__main__":
    main()
