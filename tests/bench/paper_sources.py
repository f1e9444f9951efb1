"""What the block-profiling paper published, and the two sources that it measured with.

Shared by the page (``bench_paper.py``) and by the tests that hold it. Published values with their
origin: ``tests/golden/blockprofile_cikm2021.json``. Latency is the Note10 block table, read through
``hwprof import``; accuracy is OFA's predictor, read as ``predictor:``.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwprof import api
from hwprof.api.runs import latency_model
from hwprof.campaign import sample_networks
from hwprof.estimate.design_matrix import DesignMatrix
from hwprof.estimate.friendliness import fit_friendliness
from hwprof.estimate.pinned import PinnedValues, measure_pins
from hwprof.estimate.pinned_effects import equivalent_effects
from hwprof.estimate.pinning import PinnedForm
from hwprof.estimate.responses import Friendliness, Response
from hwprof.results import Sample
from hwprof.search.scoring.accuracy import open_accuracy
from hwprof.search.scoring.predictor import PredictorAccuracy
from hwprof.space import get_space
from hwprof.store import Run

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / ".." / "shared" / "data"
NOTE10, PREDICTOR = "note10_ofa_mbv3_w12_blocks.csv.gz", "ofa_acc_predictor_mbv3_w12.npz"
PAPER: dict[str, Any] = json.loads(
    (ROOT / "tests" / "golden" / "blockprofile_cikm2021.json").read_text()
)
RESOLUTIONS = (224, 208, 192)
FORMS: tuple[PinnedForm, ...] = ("released", "deepen", "text")
N_TRUTH = 20_000


@dataclass(frozen=True, kw_only=True)
class Sources:
    """What the paper measured with, and the effects that each source gives."""

    notes: dict[int, Friendliness]
    """Exact effects on Note10 latency by resolution."""
    coefficients_s: Floats
    """Of the table at 224 px."""
    outside_s: float
    score: Callable[[Codes], Floats]
    n_per_pin: int

    @cached_property
    def design(self) -> DesignMatrix:
        """The design matrix at 224 px."""
        return DesignMatrix(get_space(PAPER["space"]))

    def shared(self, n: int, seed: int = 0) -> Friendliness:
        """Effects from one shared sample of ``n`` networks, both metrics."""
        archs = sample_networks(self.design.space, seed, n)
        codes = self.design.encode(archs)
        columns = zip(
            archs,
            self.design.predictions(self.coefficients_s, codes).tolist(),
            self.score(codes).tolist(),
            strict=True,
        )
        samples = [Sample(arch=a, latency_s=s, accuracy_pct=p) for a, s, p in columns]
        return fit_friendliness(self.design.space, samples)

    @cached_property
    def truth(self) -> Friendliness:
        """Effects on accuracy from so many networks that their noise does not show."""
        return self.shared(N_TRUTH, seed=1)

    @cached_property
    def pinned(self) -> dict[PinnedForm, PinnedValues]:
        """Pinned samples of the predictor, by sampler."""
        return {
            form: pinned_accuracy(
                self.design, self.truth.accuracy, self.score, form=form, n=self.n_per_pin
            )
            for form in FORMS
        }


def open_sources(data: Path, n_per_pin: int) -> Sources:
    """Import the table at every resolution and open the predictor."""
    space, predictor = get_space(PAPER["space"]), open_predictor(data)
    with tempfile.TemporaryDirectory() as folder:
        runs = {px: import_note10(Path(folder) / str(px), px, data=data) for px in RESOLUTIONS}
        model, _ = latency_model(runs[224])
        return Sources(
            notes={px: api.effects(run) for px, run in runs.items()},
            coefficients_s=model.coefficients,
            outside_s=outside_s(runs[224]),
            score=lambda codes: predictor.score_codes(space, codes),
            n_per_pin=n_per_pin,
        )


def import_note10(out: Path, resolution_px: int, *, data: Path = DATA) -> Path:
    """Write the block table at one input size as a run; return its folder."""
    return api.import_(
        data / NOTE10,
        space=PAPER["space"],
        device_name="note10",
        out=out,
        resolution_px=resolution_px,
    )


def outside_s(run_path: Path) -> float:
    """Return what the table at 224 px gives to the parts that every network has."""
    with Run.open(run_path) as run:
        return sum(b.latency_s for b in run.imported_blocks(224) if b.unit is None)


def open_predictor(data: Path = DATA) -> PredictorAccuracy:
    """Open OFA's accuracy predictor."""
    source = open_accuracy(f"predictor:{data / PREDICTOR}")
    assert isinstance(source, PredictorAccuracy)
    return source


def pinned_accuracy(
    design: DesignMatrix,
    response: Response | None,
    score: Callable[[Codes], Floats],
    *,
    form: PinnedForm,
    n: int,
) -> PinnedValues:
    """Return pinned samples of the predictor; its additive part enters with its exact mean.

    Args:
        design: of the space.
        response: what is additive in accuracy, of a shared sample.
        score: the predictor, by codes.
        form: the sampler.
        n: networks a pin.
    """
    assert response is not None
    assert response.mean is not None
    rows = design.expansion
    coefficients: Floats = np.linalg.lstsq(rows, response.values, rcond=None)[0].astype(np.float64)
    coefficients[0] = response.mean.value
    rest = measure_pins(
        design, lambda codes: score(codes) - design.predictions(coefficients, codes), n=n, form=form
    )
    exact = replace(response, values=rows @ coefficients)
    shift = {pin: e.value for pin, e in equivalent_effects(design, exact, form).items()}
    return PinnedValues(
        values={
            pin: coefficients[0] + (shift[pin] if pin is not None else 0.0) + values
            for pin, values in rest.values.items()
        }
    )


def latency_responses_ms(found: Friendliness, form: PinnedForm) -> Floats:
    """Return equation 1 as the form's sampler gives it of endless networks, by block."""
    assert found.mean_latency is not None
    by_block: dict[str, list[float]] = {block: [] for block in PAPER["blocks"]}
    for pin, effect in equivalent_effects(found.design, found.latency, form).items():
        by_block[pin.block].append(found.mean_latency.value + effect.value)
    return 1e3 * np.array([np.mean(values) for values in by_block.values()])


def latency_curve_ms(found: Friendliness, form: PinnedForm) -> Floats:
    """Return the 180 effects on latency (equation 2) that the form's sampler gives."""
    effects = equivalent_effects(found.design, found.latency, form)
    return 1e3 * np.array([effect.value for effect in effects.values()])


def accuracy_curve_pct(found: PinnedValues) -> Floats:
    """Return the 180 effects on accuracy (equation 2) of a pinned sample."""
    return np.array([effect.value for effect in found.placement_effects().values()])


def agreement(x: Floats, y: Floats) -> tuple[float, float, float]:
    """Return correlation, slope of y on x, and largest difference."""
    return (
        float(np.corrcoef(x, y)[0, 1]),
        float(np.polyfit(x, y, 1)[0]),
        float(np.abs(x - y).max()),
    )
