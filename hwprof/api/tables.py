"""A sequence of typed rows that gives a frame and shows itself in a notebook."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, overload

if TYPE_CHECKING:
    import pandas as pd


class Row(Protocol):
    """A typed result that can be written as one row."""

    def to_row(self) -> dict[str, Any]:
        """Return the row's columns."""
        ...


T = TypeVar("T", bound=Row)


@dataclass(frozen=True)
class Table(Sequence[T]):
    """Rows of one kind; ``table[0]`` is typed, ``table.to_frame()`` is for analysis."""

    rows: tuple[T, ...]

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...
    def __getitem__(self, index: int | slice) -> T | Sequence[T]:
        return self.rows[index]

    def __len__(self) -> int:
        return len(self.rows)

    def to_json(self) -> list[dict[str, Any]]:
        """Return the rows as plain data, as ``--json`` prints them."""
        return [row.to_row() for row in self.rows]

    def to_frame(self) -> pd.DataFrame:
        """Return one row of the frame for each row."""
        import pandas as pd

        return pd.DataFrame(self.to_json())

    def _repr_html_(self) -> str:
        html: str = self.to_frame().to_html(index=False)
        return html
