"""The accuracy predictor that once-for-all published: a surrogate, not a measurement.

Source: Cai et al., ICLR 2020, and the released file ``ofa_acc_predictor``: a multilayer
perceptron with ReLU on one-hot codes of a MobileNetV3 network, trained on ImageNet top-1.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwprof.errors import DataError, SpaceError
from hwprof.search.data.npz import load_arrays
from hwprof.space import Architecture, DesignSpace, Slot, space_of
from hwprof.space.mbconv import parse_mbconv

log = logging.getLogger(__name__)

SPACES = ("ofa-mbv3-w1.0", "ofa-mbv3-w1.2")
KERNELS = (3, 5, 7)
EXPANSIONS = (3, 4, 6)
N_UNITS, MAX_DEPTH = 5, 4
N_BLOCKS = N_UNITS * MAX_DEPTH
SMALLEST_PX, STEP_PX, N_RESOLUTIONS = 112, 16, 8
N_INPUTS = N_BLOCKS * (len(KERNELS) + len(EXPANSIONS)) + N_RESOLUTIONS
"""128: 20 blocks by 3 kernels, then 20 blocks by 3 expansions, then 8 resolutions."""
TRAINED_PX = 160
"""Below this the published weights are as they were initialised: resolution 128 scores above 160."""
CHUNK = 4096
"""Architectures run at once, so that memory does not grow with the question."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PredictorAccuracy:
    """Top-1 in percent as the perceptron of an ``.npz`` predicts it."""

    name: str
    digest: str
    layers: tuple[tuple[NDArray[np.float32], NDArray[np.float32]], ...]
    """Weight [outputs, inputs] and bias [outputs] of every layer, ReLU between them."""

    @classmethod
    def open(cls, path: Path) -> PredictorAccuracy:
        """Read the arrays ``0.weight``, ``0.bias``, ``2.weight`` and so on.

        Raises:
            DataError: the file is damaged, or not a perceptron from 128 inputs to one output.
        """
        arrays = load_arrays(path)
        return cls(
            name=f"predictor:{path.name}",
            digest=hashlib.sha256(path.read_bytes()).hexdigest()[:16],
            layers=_layers(path, arrays),
        )

    def score(self, archs: Sequence[Architecture]) -> list[float | None]:
        """Return the predicted top-1 in percent of each architecture.

        Raises:
            SpaceError: one is no network of OFA-MobileNetV3, or its resolution has no code.
        """
        if any(arch.resolution_px < TRAINED_PX for arch in archs):
            log.warning(
                "%s was trained on networks of %d px and more: for smaller ones it tells nothing",
                self.name,
                TRAINED_PX,
            )
        scores: list[float | None] = []
        for start in range(0, len(archs), CHUNK):
            values = self._forward(encode(archs[start : start + CHUNK]))
            # The perceptron gives a fraction.
            scores += (100.0 * values.astype(np.float64)).tolist()
        return scores

    def score_codes(self, space: DesignSpace, codes: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the predicted top-1 in percent of networks that ``space.encode`` gave codes for.

        A million networks take seconds; codes are trusted to be networks of the space.

        Args:
            space: OFA-MobileNetV3, at a resolution that has a code.
            codes: ``int64[n, n_slots]``.

        Raises:
            SpaceError: it is another space, or its resolution has no code.
        """
        columns = _columns_of_codes(space)
        scores = np.empty(len(codes))
        for start in range(0, len(codes), CHUNK):
            part = codes[start : start + CHUNK]
            x = np.zeros((len(part), N_INPUTS), dtype=np.float32)
            x[:, _resolution_column(space.resolution_px)] = 1.0
            for code, (kernel, expansion) in zip(part.T, columns, strict=True):
                rows = np.flatnonzero(code >= 0)
                x[rows, kernel[code[rows]]] = 1.0
                x[rows, expansion[code[rows]]] = 1.0
            # The perceptron gives a fraction.
            scores[start : start + CHUNK] = 100.0 * self._forward(x).astype(np.float64)
        return scores

    def _forward(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        *hidden, (weight, bias) = self.layers
        for inner_weight, inner_bias in hidden:
            x = np.maximum(x @ inner_weight.T + inner_bias, 0.0)
        output: NDArray[np.float32] = (x @ weight.T + bias)[:, 0]
        return output


def encode(archs: Sequence[Architecture]) -> NDArray[np.float32]:
    """Return the one-hot codes, float32 [len(archs), 128]; zeros where a block is absent.

    Raises:
        SpaceError: an architecture is of another space, or its resolution has no code.
    """
    codes = np.zeros((len(archs), N_INPUTS), dtype=np.float32)
    for row, arch in enumerate(archs):
        codes[row, _columns(arch)] = 1.0
    return codes


def _columns(arch: Architecture) -> list[int]:
    _require_known(arch.space)
    space_of(arch).require_searchable(arch)
    columns = [_resolution_column(arch.resolution_px)]
    for unit, blocks in enumerate(arch.units):
        columns += _unit_columns(unit, blocks)
    return columns


@lru_cache(maxsize=65_536)
def _unit_columns(unit: int, blocks: tuple[str, ...]) -> tuple[int, ...]:
    """Return the inputs that a unit sets; units recur far more often than networks."""
    pairs = (_block_columns(Slot(unit, layer), block) for layer, block in enumerate(blocks))
    return tuple(column for pair in pairs for column in pair)


def _columns_of_codes(
    space: DesignSpace,
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Return for every slot the inputs that each code of it sets: kernels, expansions."""
    _require_known(space.name)
    found = []
    for slot in space.slots:
        pairs = np.array([_block_columns(slot, block) for block in space.base_choices(slot)])
        found.append((pairs[:, 0], pairs[:, 1]))
    return found


def _block_columns(slot: Slot, block: str) -> tuple[int, int]:
    """Return the two inputs that a block sets."""
    place = slot.unit * MAX_DEPTH + slot.layer
    kernel, expand = parse_mbconv(block)
    return (
        place * len(KERNELS) + KERNELS.index(kernel),
        len(KERNELS) * N_BLOCKS + place * len(EXPANSIONS) + EXPANSIONS.index(expand),
    )


def _require_known(space: str) -> None:
    if space not in SPACES:
        raise SpaceError(
            f"the predictor knows networks of {' and '.join(SPACES)}; this one is of {space!r}"
        )


def _resolution_column(resolution_px: int) -> int:
    resolution = (resolution_px - SMALLEST_PX) // STEP_PX
    if not 0 <= resolution < N_RESOLUTIONS:
        raise SpaceError(
            f"the predictor knows {SMALLEST_PX} to {SMALLEST_PX + STEP_PX * N_RESOLUTIONS - 1} px; "
            f"the architecture is for {resolution_px} px"
        )
    return len(KERNELS) * N_BLOCKS + len(EXPANSIONS) * N_BLOCKS + resolution


def _layers(
    path: Path, arrays: dict[str, NDArray[Any]]
) -> tuple[tuple[NDArray[np.float32], NDArray[np.float32]], ...]:
    numbers = sorted({int(n.partition(".")[0]) for n in arrays if n.partition(".")[0].isdigit()})
    expected = {f"{n}.{part}" for n in numbers for part in ("weight", "bias")}
    if not numbers or set(arrays) != expected:
        raise DataError(
            f"{str(path)!r} holds the arrays {sorted(arrays)}; expected a weight and a bias of "
            "every layer: 0.weight, 0.bias, 2.weight, 2.bias and so on"
        )
    layers = []
    width = N_INPUTS
    for number in numbers:
        weight, bias = arrays[f"{number}.weight"], arrays[f"{number}.bias"]
        outputs = 1 if number == numbers[-1] else len(bias) if bias.ndim == 1 else -1
        if weight.shape != (outputs, width) or bias.shape != (outputs,):
            raise DataError(
                f"layer {number} of {str(path)!r} has a weight {weight.shape} and a bias "
                f"{bias.shape}; expected a perceptron from {N_INPUTS} inputs to one output, "
                f"here (n, {width}) and (n,)"
            )
        if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
            raise DataError(f"layer {number} of {str(path)!r} holds numbers that are not finite")
        layers.append((weight.astype(np.float32), bias.astype(np.float32)))
        width = outputs
    return tuple(layers)
