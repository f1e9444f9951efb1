"""Is the front of the reduced space better than that of the full one, at equal search budget?

    python tests/bench/bench_claim.py ../shared/data --seeds 20 --evals 200

Three kinds of evidence: OFA's accuracy predictor with the Galaxy Note10's block table,
NAS-Bench-201's accuracies with the latencies of every device of its table, and, where given, run
folders of ``mobile-mini`` (or any space) with an accuracy source (``--run RUN --accuracy SRC``).
Each seed draws its own sample of networks, cuts the space by what that sample says (where a table
prices all blocks, by that), and searches both spaces with the same budget, strategy and seed. Of a
run the sample is ``--sample`` of its networks, all where it has no more: seeds then differ in the
search alone. Networks of a run are judged by its latency model, not timed again. The gain is that of
the hypervolume up to a reference point common to both, paired by seed, with a 95 % t interval, its
p-value, and that corrected for all cases together (Holm 1979). The networks that the reduction looked
at cost extra, and are counted in no budget: they are what a profile measures anyway.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from hwprof import api
from hwprof.api.runs import latency_model, scored_samples
from hwprof.estimate.claims import holm
from hwprof.estimate.friendliness import fit_friendliness
from hwprof.estimate.least_squares import t_quantile, two_sided_p
from hwprof.estimate.run_analysis import run_space
from hwprof.pareto import hypervolume
from hwprof.results import Sample, Trial
from hwprof.search.reducing.reducer import reduce_space
from hwprof.search.scoring.accuracy import open_accuracy
from hwprof.search.strategy import Evaluated, make_strategy
from hwprof.space import Architecture, DesignSpace, get_space, reduced_space
from hwprof.space.reduction import Reduction
from hwprof.store import Run
from tests.bench.arguments import existing

Judge = Callable[[Sequence[Architecture]], list[tuple[float, float]]]
"""Networks → latency in seconds and accuracy in percent."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A space, what its networks are worth, and how a seed reduces it."""

    name: str
    space: DesignSpace
    judge: Judge
    reduce: Callable[[int], Reduction]


def search(space: DesignSpace, judge: Judge, strategy: str, evals: int, seed: int) -> np.ndarray:
    """Search once; return ``float64[evals, 2]``, latency and accuracy of every network judged."""
    made = make_strategy(strategy, space, np.random.default_rng(seed))
    known: dict[str, tuple[float, float]] = {}
    while len(known) < evals:
        before = len(known)
        asked = made.ask(evals - before).archs
        values = judge(asked)
        trials = tuple(
            Trial(
                arch=arch,
                accuracy_pct=accuracy,
                accuracy_source="table",
                latency_s=latency_s,
                latency_source="table",
                macs=0,
                params=0,
            )
            for arch, (latency_s, accuracy) in zip(asked, values, strict=True)
        )
        made.tell(Evaluated(outcomes=trials))
        known.update((a.arch_id, v) for a, v in zip(asked, values, strict=True))
        if len(known) == before:
            break
    return np.array(list(known.values()))


def compare(case: Case, strategy: str, evals: int, seeds: int) -> dict[str, object]:
    """Return the gain of one case over all seeds, with its interval."""
    full, cut, kept = [], [], []
    for seed in range(seeds):
        reduction = case.reduce(seed)
        small = reduced_space(reduction)
        kept.append(
            np.log10(float(small.size().n_encodings))
            / np.log10(float(case.space.size().n_encodings))
        )
        full.append(search(case.space, case.judge, strategy, evals, 1000 + seed))
        cut.append(search(small, case.judge, strategy, evals, 1000 + seed))
    everything = np.concatenate(full + cut)
    reference = (float(everything[:, 0].max()), float(np.quantile(everything[:, 1], 0.05)))
    volumes = np.array(
        [[hypervolume(found[:, 0], found[:, 1], reference) for found in pair]
         for pair in zip(full, cut, strict=True)]
    )  # fmt: skip
    gains = 100.0 * (volumes[:, 1] / volumes[:, 0] - 1.0)
    mean = float(gains.mean())
    sd = float(gains.std(ddof=1)) if seeds > 1 else float("nan")
    half = t_quantile(0.975, seeds - 1.0) * sd / np.sqrt(seeds) if seeds > 1 else float("nan")
    verdict = "better" if mean > half else "worse" if mean < -half else "no difference shown"
    return {
        "case": case.name,
        "gain_pct": mean,
        "lo_pct": mean - half,
        "hi_pct": mean + half,
        "seeds_better": int((gains > 0.0).sum()),
        "size_kept": float(np.mean(kept)),
        "verdict": verdict,
        "p": two_sided_p(mean / (sd / np.sqrt(seeds)), seeds - 1.0) if sd > 0.0 else 1.0,
    }


def nb201_cases(data: Path, sample: int, budget: float) -> Iterator[Case]:
    """Yield a case for every latency column of NAS-Bench-201's table."""
    space = get_space("nasbench201")
    table = pd.read_csv(data / "nb201_accuracy.csv.gz").merge(
        pd.read_csv(data / "nb201_latency.csv.gz"), on="index"
    )
    rows = {str(cell): i for i, cell in enumerate(table["arch"])}
    archs = [Architecture(space=space.name, resolution_px=32, cell=cell) for cell in rows]
    accuracy = table["c10_valid_200"].to_numpy(np.float64)
    for column in (c for c in table.columns if c.endswith("_ms")):
        latency_s = table[column].to_numpy(np.float64) / 1e3

        def judge(
            asked: Sequence[Architecture], latency_s: np.ndarray = latency_s
        ) -> list[tuple[float, float]]:
            found = [rows[str(a.cell)] for a in asked]
            return [(float(latency_s[i]), float(accuracy[i])) for i in found]

        def reduce(seed: int, latency_s: np.ndarray = latency_s) -> Reduction:
            drawn = np.random.default_rng(seed).choice(len(archs), sample, replace=False)
            samples = [
                Sample(
                    arch=archs[i], latency_s=float(latency_s[i]), accuracy_pct=float(accuracy[i])
                )
                for i in drawn
            ]
            found = fit_friendliness(space, samples)
            return reduce_space(space, found, max_accuracy_drop_pp=budget)

        yield Case(
            name=f"nasbench201 {column.removesuffix('_ms')}",
            space=space,
            judge=judge,
            reduce=reduce,
        )


def run_case(name: str, run: Path, accuracy: str, sample: int, budget: float) -> Case:
    """Return the case of a run folder with its latency model and an accuracy source."""
    model, _ = latency_model(run)
    source = open_accuracy(accuracy, data=None)
    with Run.open(run) as opened:
        space, table = run_space(opened), opened.kind == "import"
        samples = [] if table else scored_samples(opened, accuracy)
    whole = api.reduce(run, accuracy=accuracy, max_accuracy_drop_pp=budget) if table else None

    def judge(asked: Sequence[Architecture]) -> list[tuple[float, float]]:
        latency_s, _ = model.predict_many(asked)
        scores = source.score(list(asked))
        if any(score is None for score in scores):
            raise SystemExit(f"{accuracy} has no accuracy for some network of {name}")
        return [
            (float(t), float(s)) for t, s in zip(latency_s, scores, strict=True) if s is not None
        ]

    # Without replacement: a network counted twice would make intervals narrower than they are.
    def reduce(seed: int) -> Reduction:
        if whole is not None:
            return whole
        n = min(sample, len(samples))
        drawn = np.random.default_rng(seed).choice(len(samples), n, replace=False)
        found = fit_friendliness(space, [samples[i] for i in drawn])
        return reduce_space(space, found, max_accuracy_drop_pp=budget)

    return Case(name=name, space=space, judge=judge, reduce=reduce)


def note10_case(data: Path, sample: int, budget: float, scratch: Path) -> Case:
    """Return OFA-MobileNetV3 at width 1.2 and 224 px on the Galaxy Note10."""
    run = api.import_(
        data / "note10_ofa_mbv3_w12_blocks.csv.gz",
        space="ofa-mbv3-w1.2",
        device_name="note10",
        out=scratch / "note10",
        latency_column="mean_ms",
    )
    accuracy = f"predictor:{data / 'ofa_acc_predictor_mbv3_w12.npz'}"
    return run_case("ofa-mbv3-w1.2 note10", run, accuracy, sample, budget)


def main() -> None:
    """Print one line a case."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=existing)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--evals", type=int, default=200)
    parser.add_argument("--sample", type=int, default=150, help="networks a reduction looks at")
    parser.add_argument("--budget", type=float, default=1.0, help="points of accuracy")
    parser.add_argument("--strategy", default="nsga2")
    parser.add_argument("--run", type=Path, help="a profile, say of mobile-mini")
    parser.add_argument("--accuracy", help="its accuracy source")
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as scratch:
        cases = [
            note10_case(args.data, args.sample, args.budget, Path(scratch)),
            *nb201_cases(args.data, args.sample, args.budget),
        ]
        if args.run is not None:
            cases.append(run_case(str(args.run), args.run, args.accuracy, args.sample, args.budget))
        lines = []
        for case in cases:
            lines.append(compare(case, args.strategy, args.evals, args.seeds))
            print(lines[-1], flush=True)
        frame = pd.DataFrame(lines)
        frame["p_holm"] = holm(frame["p"].tolist())
        figures = ["gain_pct", "lo_pct", "hi_pct", "size_kept"]
        rounded = {**dict.fromkeys(figures, 2), "p": 4, "p_holm": 4}
        print(frame.round(rounded).to_string(index=False))


if __name__ == "__main__":
    main()
