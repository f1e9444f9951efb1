"""A report on disk: figures and tables first, the page last, each file whole or not at all."""

from __future__ import annotations

from pathlib import Path

from hwprof.errors import StoreError, next_step
from hwprof.files import write_whole
from hwprof.reports.views import ReportData

PAGE = "index.html"


def write_report(data: ReportData, out: Path) -> Path:
    """Write ``index.html``, ``figures/*.png|svg`` and ``tables/*.csv`` into ``out``.

    Everything is made before anything is written. Files of an earlier report that this one has
    not (a figure without data now) are removed; other files in the folder are left alone.

    Args:
        data: the results.
        out: the folder; it is made where it is missing.

    Returns:
        The path of the page.

    Raises:
        MissingExtraError: plotly or Jinja2 is not installed.
        StoreError: the folder cannot be written.
    """
    # Drawing takes seconds of imports that nobody who only asks for a table should wait for.
    from hwprof.reports.figures import FIGURES, draw_figures
    from hwprof.reports.html import render_page, require_extra
    from hwprof.reports.tables import TABLE_NAMES, csv_tables

    require_extra()
    figures = draw_figures(data)
    files = {f"figures/{f.name}.png": f.png for f in figures}
    files |= {f"figures/{f.name}.svg": f.svg.encode() for f in figures}
    files |= {f"tables/{n}.csv": text.encode() for n, text in csv_tables(data).items()}
    files[PAGE] = render_page(data, figures).encode()
    ours = {f"figures/{n}.{kind}" for n in FIGURES for kind in ("png", "svg")}
    ours |= {f"tables/{n}.csv" for n in TABLE_NAMES}
    try:
        for name, content in files.items():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            write_whole(out / name, content)
        for stale in ours - set(files):
            (out / stale).unlink(missing_ok=True)
    except OSError as error:
        step = next_step(error, "name a folder that you may write with --out")
        raise StoreError(
            f"cannot write the report into {str(out)!r}: {error.strerror or error}; {step}"
        ) from error
    return out / PAGE
