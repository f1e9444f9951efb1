"""Progress on stderr: a live line on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from hwprof.progress import Progress

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

PLAIN_INTERVAL_S = 10.0


class ProgressLine:
    """Shows :class:`hwprof.progress.Progress` records; use as a context manager.

    Standard output is never touched: it carries results only.
    """

    def __init__(self) -> None:
        self._live: RichProgress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._last_plain_s = 0.0
        self._last_state: tuple[str, bool] | None = None
        """Stage of the last plain line, and whether that was its end, which is told once."""

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
            from rich.progress import Progress as RichProgress

            self._live = RichProgress(
                TextColumn("{task.description:<22}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[remaining]:>12}"),
                TextColumn("{task.fields[label]}", style="dim"),
                console=Console(stderr=True),
                transient=False,
            )
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def __call__(self, event: Progress) -> None:
        """Show one record."""
        if self._live is None:
            self._plain(event)
            return
        if event.stage not in self._tasks:
            self._tasks[event.stage] = self._live.add_task(
                event.stage, total=event.total, remaining="", label=""
            )
        self._live.update(
            self._tasks[event.stage],
            completed=event.done,
            total=event.total,
            remaining=_remaining(event.eta_s),
            label=event.label[:48],
        )

    def _plain(self, event: Progress) -> None:
        now_s = time.monotonic()
        state = (event.stage, event.done >= event.total)
        if state == self._last_state and now_s - self._last_plain_s < PLAIN_INTERVAL_S:
            return
        self._last_plain_s, self._last_state = now_s, state
        parts = [f"{event.stage}: {event.done} of {event.total}"]
        parts += [text for text in (_remaining(event.eta_s), event.label) if text]
        sys.stderr.write(", ".join(parts) + "\n")
        sys.stderr.flush()


def _remaining(eta_s: float | None) -> str:
    if eta_s is None:
        return ""
    minutes, seconds = divmod(round(eta_s), 60)
    return f"{minutes} min {seconds:02d} s left" if minutes else f"{seconds} s left"
