"""Latency models on disk: ``.npz`` of plain arrays with JSON beside them, no pickles."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hwprof.errors import FormatVersionError, IncompatibleRunError, StoreError, next_step
from hwprof.estimate.design_matrix import DesignMatrix
from hwprof.estimate.interactions import InteractionTest
from hwprof.estimate.latency_model import AdditiveLatencyModel
from hwprof.files import write_whole
from hwprof.measure.records import Fingerprint
from hwprof.npz import load_arrays
from hwprof.results import Holdout
from hwprof.space import DesignSpace, Slot

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMAT = 2
"""2 may leave out unused blocks and hold terms for pairs of blocks."""
READABLE = (1, FORMAT)


def write_model(model: AdditiveLatencyModel, path: Path) -> None:
    """Write the model so that the same model gives the same bytes; replaces the file at once.

    Raises:
        StoreError: the folder is missing, read-only or full.
    """
    meta = {
        "format": FORMAT,
        "kind": "additive_latency_model",
        "space": _space_facts(model.space),
        "fingerprint": model.fingerprint.to_json() if model.fingerprint else None,
        "residual_sd_s": model.residual_sd_s,
        "degrees": model.degrees,
        "penalty": model.penalty,
        "n_networks": model.n_networks,
        "holdout": model.holdout.to_json() if model.holdout else None,
        "drops_unused": model.drops_unused,
        "common_sd": model.common_sd,
        "tested": [test.to_json() for test in model.tested],
    }
    text = json.dumps(meta, sort_keys=True).encode()
    content = io.BytesIO()
    np.savez(
        content,
        meta=np.frombuffer(text, dtype=np.uint8),
        coefficients=model.coefficients,
        inverse=model.inverse,
        seen=np.concatenate(model.seen),
    )
    try:
        write_whole(path, content.getvalue())
    except OSError as error:
        step = next_step(error, "name a file in an existing folder that you may write")
        raise StoreError(
            f"cannot write the latency model {str(path)!r}: {error.strerror or error}; {step}"
        ) from error


def read_model(path: Path, space: DesignSpace | None = None) -> AdditiveLatencyModel:
    """Read a model that :func:`write_model` wrote.

    Args:
        path: the file.
        space: the model's; needed where its name is not a registered one.

    Raises:
        FormatVersionError: the file is of another version.
        StoreError: it cannot be read.
        IncompatibleRunError: ``space`` is not the one of the file.
    """
    meta, arrays = _read_file(path)
    facts = meta["space"]
    space = _named_space(facts) if space is None else space
    if _space_facts(space) != facts:
        raise IncompatibleRunError(
            f"{str(path)!r} holds a model of {facts['name']} at {facts['resolution_px']} px, "
            f"not of the {space.name} at {space.resolution_px} px that was given"
        )
    sizes = [decision.valid.size for decision in DesignMatrix(space).decisions]
    fingerprint, holdout = meta["fingerprint"], meta["holdout"]
    return AdditiveLatencyModel(
        space=space,
        coefficients=arrays["coefficients"],
        inverse=arrays["inverse"],
        residual_sd_s=meta["residual_sd_s"],
        degrees=meta["degrees"],
        penalty=meta["penalty"],
        n_networks=meta["n_networks"],
        seen=tuple(np.split(arrays["seen"], np.cumsum(sizes)[:-1])),
        fingerprint=Fingerprint.from_json(fingerprint) if fingerprint else None,
        holdout=Holdout(**holdout) if holdout else None,
        tested=tuple(InteractionTest(**test) for test in meta.get("tested", ())),
        drops_unused=meta.get("drops_unused", False),
        common_sd=meta.get("common_sd", 0.0),
    )


def _read_file(path: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    try:
        arrays = load_arrays(path)
        meta = json.loads(arrays.pop("meta").tobytes())
    # DataError is a ValueError.
    except (ValueError, KeyError, RecursionError) as error:
        raise StoreError(f"cannot read {str(path)!r} as a latency model: {error}") from error
    if not isinstance(meta, dict) or meta.get("kind") != "additive_latency_model":
        raise StoreError(
            f"{str(path)!r} is no latency model; expected one that `hwprof adapt` wrote"
        )
    if meta.get("format") not in READABLE:
        raise FormatVersionError(
            f"{str(path)!r} has format {meta.get('format')!r}; this version reads {READABLE[0]} and {FORMAT}: "
            "fit the model again from its run"
        )
    return meta, arrays


def _space_facts(space: DesignSpace) -> dict[str, Any]:
    return {
        "name": space.name,
        "resolution_px": space.resolution_px,
        "max_depth": list(space.max_depth),
        "alive": [[*slot, list(space.choices(slot))] for slot in space.slots],
    }


def _named_space(facts: dict[str, Any]) -> DesignSpace:
    from hwprof.space import get_space

    base = get_space(facts["name"], facts["resolution_px"])
    alive = {Slot(unit, layer): tuple(blocks) for unit, layer, blocks in facts["alive"]}
    return base.restrict(alive, tuple(facts["max_depth"]))
