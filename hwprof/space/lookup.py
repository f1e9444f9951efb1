"""Spaces and kinds of piece by name: those that ship, and the user's own."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import fields
from functools import lru_cache
from typing import Any

from hwprof.errors import SpaceError, either
from hwprof.space.architecture import Architecture
from hwprof.space.catalog import CATALOG
from hwprof.space.own import ENVIRONMENT, load_all, own_space, own_space_names
from hwprof.space.pieces import PIECES, ChainPiece, Piece
from hwprof.space.space import DesignSpace


def space_names() -> tuple[str, ...]:
    """Return the names of the design spaces that ship, then those of the user's own."""
    return (*CATALOG, *own_space_names())


def space_of(arch: Architecture) -> DesignSpace:
    """Return the whole space that ``arch`` names, at its resolution.

    Raises:
        SpaceError: no such space.
    """
    return named_space(arch.space, arch.resolution_px)


def network_id(arch: Architecture) -> str:
    """Return what all encodings of a network have in common, and no other network."""
    return space_of(arch).canonical(arch).arch_id


def named_space(name: str, resolution_px: int | None = None) -> DesignSpace:
    """Return the whole space of a name that :func:`space_names` lists.

    Args:
        name: the space's.
        resolution_px: side of the input; without it the space's own.

    Raises:
        SpaceError: no such space.
    """
    if name in CATALOG:
        return _shipped(name, resolution_px)
    space = own_space(name)
    if space is None:
        known = space_names()
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"expected {either(known)}"
        raise SpaceError(
            f"unknown design space {name!r}: {hint} (a reduced space is given as a .yaml file; "
            f"one of your own too, or by {ENVIRONMENT}=my_space.yaml)"
        )
    return space if resolution_px is None else space.at_resolution(resolution_px)


@lru_cache(maxsize=64)
def _shipped(name: str, resolution_px: int | None) -> DesignSpace:
    space = CATALOG[name]()
    return space if resolution_px is None else space.at_resolution(resolution_px)


def piece_from_json(data: Mapping[str, Any]) -> Piece:
    """Read a piece from plain data; the user's own spaces are loaded for a kind that none has.

    Raises:
        SpaceError: the kind is unknown or the fields are not those of the kind.
    """
    kind = str(data.get("kind"))
    if kind not in PIECES:
        load_all()
    if kind not in PIECES:
        raise SpaceError(
            f"unknown kind of block {data.get('kind')!r}; expected {either(sorted(PIECES))}"
        )
    cls = PIECES[kind]
    names = {f.name for f in fields(cls)}
    given: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in data.items() if k != "kind"
    }
    if cls is ChainPiece:
        given["pieces"] = tuple(map(piece_from_json, given.get("pieces", ())))
    if set(given) != names:
        raise SpaceError(
            f"a {kind!r} block has the fields {', '.join(sorted(names))}, not "
            f"{', '.join(sorted(given)) or 'none'}"
        )
    return cls(**given)
