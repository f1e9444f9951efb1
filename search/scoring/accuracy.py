"""Accuracy sources: top-1 in percent from a supernet, a table or a predictor, or a proxy for it.

Each is a :class:`hwprof.protocols.AccuracySource`. torch is imported only for ``supernet:`` and
proxies of weights.
"""

from __future__ import annotations

import logging
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hwprof.errors import DataError, SpaceError
from hwprof.importing.networks import parse_architecture
from hwprof.importing.tables import Row, Table, read_table
from hwprof.protocols import AccuracySource
from hwprof.search.scoring.predictor import PredictorAccuracy
from hwprof.search.scoring.proxies import ProxyAccuracy
from hwprof.space import Architecture, network_id, space_of
from hwprof.torch_import import needs_torch

if TYPE_CHECKING:
    from torch import nn

    from hwprof.search.scoring.ofa_accuracy import OfaAccuracy

log = logging.getLogger(__name__)

KINDS = "supernet:CHECKPOINT, table:FILE.csv, predictor:FILE.npz or proxy:NAME"


def open_accuracy(spec: str | AccuracySource, *, data: str | None = None) -> AccuracySource:
    """Open what ``--accuracy`` names; a source of the caller's own is returned as it is.

    Args:
        spec: ``supernet:CHECKPOINT``, ``table:FILE.csv[.gz]``, ``predictor:FILE.npz`` or
            ``proxy:NAME``, which gives percentiles instead; or a source.
        data: where the images of a supernet lie now; by default where they lay in training. A
            published once-for-all supernet does not say: it needs them.

    Raises:
        DataError: no such kind of source or proxy, or its file or images cannot be used.
        MissingExtraError: a supernet or a proxy of weights, and torch is not installed.
    """
    if not isinstance(spec, str):
        if not isinstance(spec, AccuracySource):
            raise DataError(
                f"{spec!r} is no accuracy source: it lacks name, digest or score "
                "(hwprof.protocols.AccuracySource)"
            )
        if data is not None:
            raise DataError(f"--data {data!r} means nothing to {spec.name!r}; leave it out")
        return spec
    kind, colon, path = spec.partition(":")
    if not colon or not path or kind not in _OPENERS:
        raise DataError(f"{spec!r} is no accuracy source; expected {KINDS}")
    if data is not None and kind != "supernet":
        raise DataError(f"--data {data!r} means nothing to {spec!r}; leave it out")
    return _OPENERS[kind](path, data)


def network_from_checkpoint(
    checkpoint: str | Path, arch: Architecture, *, data: str | None = None
) -> nn.Module:
    """Return ``arch`` with the weights of a checkpoint, in evaluation mode.

    A network of a supernet gets its own batch norm statistics. ``module.graph`` is the graph
    that its weights belong to (its classifier is made for the classes that were trained).

    Raises:
        DataError: the checkpoint or its images cannot be used.
        IncompatibleRunError: the checkpoint is of another space or network.
    """
    _require_torch("weights of a checkpoint")
    published = _published(Path(checkpoint), data)
    if published is not None:
        return published.network(arch)
    from hwprof.search.scoring.supernet_accuracy import trained_network

    return trained_network(checkpoint, arch, data=data)


@dataclass(frozen=True, kw_only=True)
class TableAccuracy:
    """Accuracies from a table with the columns ``arch`` and ``accuracy_pct``.

    A network takes the accuracy of its own encoding or, where the table lacks that, the mean
    of the other encodings of the same network.
    """

    name: str
    digest: str
    own: Mapping[str, float]
    """By ``arch_id`` as written."""
    canonical: Mapping[str, float]
    """By ``arch_id`` of the canonical encoding."""

    @classmethod
    def open(cls, path: Path) -> TableAccuracy:
        """Read a ``.csv`` or ``.csv.gz``.

        Raises:
            DataError: naming line and column, or fractions given for percent.
        """
        table = read_table(path)
        for column in ("arch", "accuracy_pct"):
            if column not in table.column_set:
                raise table.wrong(
                    f"has no column {column!r}; it has {', '.join(table.columns)}: expected arch "
                    "and accuracy_pct (top-1 in percent)"
                )
        own: dict[str, float] = {}
        canonical: dict[str, list[float]] = {}
        for row in table.rows:
            value = row.optional_number("accuracy_pct")
            if value is None:
                continue
            arch, key = _identified(row)
            if arch.arch_id in own:
                raise row.wrong("arch", "every network once; it is there twice")
            own[arch.arch_id] = value
            canonical.setdefault(key, []).append(value)
        _check_percent(table, own)
        return cls(
            name=f"table:{path.name}",
            digest=table.sha256[:16],
            own=own,
            canonical={key: statistics.fmean(values) for key, values in canonical.items()},
        )

    def score(self, archs: Sequence[Architecture]) -> list[float | None]:
        """Return top-1 in percent for each architecture, None where the table has none."""
        found = [self._lookup(arch) for arch in archs]
        log.info("%s has %d of %d networks", self.name, self.n_matched(archs), len(archs))
        return found

    def n_matched(self, archs: Sequence[Architecture]) -> int:
        """Count the architectures that the table has."""
        return sum(self._lookup(arch) is not None for arch in archs)

    def _lookup(self, arch: Architecture) -> float | None:
        if arch.arch_id in self.own:
            return self.own[arch.arch_id]
        return self.canonical.get(network_id(arch))


def _identified(row: Row) -> tuple[Architecture, str]:
    """Return the architecture of a row, and the ``arch_id`` of its canonical encoding."""
    try:
        arch = parse_architecture(row.text("arch"))
        space_of(arch).validate(arch)
        return arch, network_id(arch)
    except SpaceError as error:
        raise DataError(f"{row.file} line {row.line}, arch: {error}") from error


def _check_percent(table: Table, values: Mapping[str, float]) -> None:
    if not values:
        raise table.wrong("has no accuracy in any row; expected top-1 in percent in accuracy_pct")
    most = max(values.values())
    if most <= 1.0:
        raise table.wrong(
            f"has accuracy_pct up to {most:g}; expected percent (0 to 100), not fractions: "
            "multiply by 100"
        )
    if most > 100.0:
        raise table.wrong(f"has accuracy_pct up to {most:g}; expected percent, 0 to 100")


def _require_torch(purpose: str) -> None:
    with needs_torch(purpose):
        import torch  # noqa: F401


def _open_supernet(path: str, data: str | None) -> AccuracySource:
    _require_torch("an accuracy from a supernet")
    from hwprof.search.scoring.supernet_accuracy import SupernetAccuracy

    return _published(Path(path), data) or SupernetAccuracy.open(Path(path), data=data)


def _published(path: Path, data: str | None) -> OfaAccuracy | None:
    """Open a supernet that once-for-all published; None where the file is no such one."""
    from hwprof.search.scoring.ofa_accuracy import OfaAccuracy
    from hwprof.search.supernets.ofa_weights import is_published

    return OfaAccuracy.open(path, data=data) if is_published(path) else None


_OPENERS: Mapping[str, Callable[[str, str | None], AccuracySource]] = {
    "supernet": _open_supernet,
    "table": lambda path, data: TableAccuracy.open(Path(path)),
    "predictor": lambda path, data: PredictorAccuracy.open(Path(path)),
    "proxy": lambda name, data: ProxyAccuracy(name),
}
