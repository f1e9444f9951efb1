"""Repeated subgraphs: the blocks of a model whose names say nothing.

A model is cut wherever a single tensor passes from what ran to what will run (so a residual
block stays whole), and the sequence of pieces that covers most operators by repeating is taken
for its block.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hwprof.parts.model_nodes import ModelNode

LONGEST_PATTERN = 12
"""Pieces a block; a transformer's has two, an unfused one's a few more."""
LEAST_COVER = 0.5
"""Below this share of the operators, what repeats is not what the model is made of."""


def repeated_parts(nodes: Sequence[ModelNode], most: int) -> list[str] | None:
    """Return a part's name for every node, or None where nothing repeats enough.

    Args:
        nodes: the model's operators in order of execution.
        most: largest number of parts.
    """
    pieces = list(_pieces(nodes))
    types = [tuple(node.op_type for node in piece) for piece in pieces]
    best: tuple[int, int, list[int]] | None = None
    for length in range(1, min(LONGEST_PATTERN, len(types) // 2) + 1):
        for pattern in dict.fromkeys(_windows(types, length)):
            starts = _occurrences(types, pattern)
            size = sum(len(piece) for piece in pattern)
            n_parts = len(starts) + _n_gaps(starts, length, len(types))
            if len(starts) < 2 or size < 2 or n_parts > most:
                continue
            covered = size * len(starts)
            # Of equal cover the shorter pattern came first: it is the block, not two of them.
            if best is None or covered > best[0]:
                best = (covered, length, starts)
    if best is None or best[0] < LEAST_COVER * len(nodes):
        return None
    return _names(pieces, best[1], best[2])


def _pieces(nodes: Sequence[ModelNode]) -> Iterator[list[ModelNode]]:
    """Cut the sequence of nodes wherever one tensor alone connects both sides."""
    last_use = {x: i for i, node in enumerate(nodes) for x in node.inputs}
    made = {out for node in nodes for out in node.outputs}
    # An input of the model that is used late crosses every cut before it.
    alive = {x for x in last_use if x not in made}
    piece: list[ModelNode] = []
    for index, node in enumerate(nodes):
        piece.append(node)
        alive.update(out for out in node.outputs if out in last_use)
        alive = {x for x in alive if last_use[x] > index}
        if len(alive) <= 1:
            yield piece
            piece = []
    if piece:
        yield piece


Types = tuple[str, ...]


def _windows(types: Sequence[Types], length: int) -> Iterator[tuple[Types, ...]]:
    return (tuple(types[i : i + length]) for i in range(len(types) - length + 1))


def _occurrences(types: Sequence[Types], pattern: tuple[Types, ...]) -> list[int]:
    """Return where ``pattern`` stands, from left to right, without overlap."""
    starts: list[int] = []
    index = 0
    while index + len(pattern) <= len(types):
        if tuple(types[index : index + len(pattern)]) == pattern:
            starts.append(index)
            index += len(pattern)
        else:
            index += 1
    return starts


def _n_gaps(starts: Sequence[int], length: int, total: int) -> int:
    ends = [0, *(start + length for start in starts)]
    return sum(end < start for end, start in zip(ends, [*starts, total], strict=True))


def _names(pieces: Sequence[Sequence[ModelNode]], length: int, starts: Sequence[int]) -> list[str]:
    """Return every node's part: a numbered block, or what stands before, between and after."""
    names: list[str] = []
    n_blocks = len(starts)
    for index, piece in enumerate(pieces):
        begun = sum(start <= index for start in starts)
        inside = begun > 0 and index < starts[begun - 1] + length
        if inside:
            name = f"block {begun} of {n_blocks}"
        elif begun == 0:
            name = "before block 1"
        elif begun == n_blocks:
            name = f"after block {n_blocks}"
        else:
            name = f"between blocks {begun} and {begun + 1}"
        names += [name] * len(piece)
    return names
