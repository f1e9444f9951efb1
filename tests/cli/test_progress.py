"""Progress where there is no terminal: a plain line now and then."""

from __future__ import annotations

import pytest

from hwprof.cli.progress import ProgressLine
from hwprof.progress import Progress


def test_the_end_of_a_stage_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressLine() as progress:
        for stage, done, label in (
            ("measure", 0, "head"),
            ("measure", 1, "head"),
            ("measure", 1, "reference block"),
            ("measure", 1, "reference network"),
            ("trace", 0, ""),
            ("measure", 0, "stem"),
            ("measure", 1, "stem"),
        ):
            progress(Progress(stage=stage, done=done, total=1, label=label))
    assert capsys.readouterr().err.splitlines() == [
        "measure: 0 of 1, head",
        "measure: 1 of 1, head",
        "trace: 0 of 1",
        "measure: 0 of 1, stem",
        "measure: 1 of 1, stem",
    ]
