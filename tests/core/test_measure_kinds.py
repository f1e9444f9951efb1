"""Whatever an adapter raises is a kind that the docs list, and every kind is an error to a user."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from hwprof import errors
from hwprof.measure import wire
from hwprof.measure.kinds import FAILURE_KINDS, error_class, failure_kind, known_kind
from hwprof.measure.records import MeasurePlan, plan_for
from hwprof.measure.worker import AdapterServer
from hwprof.space.pieces import SkipPiece
from hwprof.workload import Workload

WORKLOAD = Workload.block(SkipPiece(in_channels=8, size_px=8), "block")


class Raising:
    """An adapter that does not compile, for a reason of the test's."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def compile(self, workload: Workload, plan: MeasurePlan) -> None:
        raise self.error


def ours(root: type[errors.HwprofError]) -> Iterator[type[errors.HwprofError]]:
    """Yield an error class of the tree and all below it."""
    yield root
    for cls in root.__subclasses__():
        yield from ours(cls)


def kind_of_compile_error(error: BaseException) -> str:
    server = AdapterServer()
    server._adapter = Raising(error)  # type: ignore[assignment]
    header = {
        "op": "compile",
        "workload": WORKLOAD.to_json(),
        "plan": asdict(plan_for("quick")),
    }
    found = server.answer(wire.Frame(header=header)).header["error"]
    assert str(error) in found["message"]
    return str(found["kind"])


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (errors.PlanError("no"), "plan"),
        (errors.ModelError("no"), "model"),
        (errors.SpaceError("no"), "model"),
        (errors.DataError("no"), "model"),
        (errors.CompileError("no"), "refused"),
        (errors.MeasurementError("no"), "refused"),
        (errors.StoreError("no"), "refused"),
        (errors.DeviceUnavailableError("no"), "unavailable"),
        (errors.MissingExtraError("x", "y", "z"), "unavailable"),
        (MemoryError("no"), "out_of_memory"),
        (wire.WireError("no"), "garbage"),
        (OSError("no"), "refused"),
        (ValueError("no"), "refused"),
        (RecursionError("no"), "refused"),
    ],
)
def test_what_compiling_raises_is_typed(error: BaseException, kind: str) -> None:
    assert kind_of_compile_error(error) == kind


def test_no_error_of_ours_is_of_a_kind_that_is_in_no_list() -> None:
    kinds = {failure_kind(cls.__new__(cls)) for cls in ours(errors.HwprofError)}
    assert {"plan", "model", "refused", "unavailable"} <= kinds
    assert kinds <= {*FAILURE_KINDS, "unavailable"}


def test_a_kind_of_another_version_is_garbage() -> None:
    assert [known_kind(kind) for kind in ("plan", "unavailable")] == ["plan", "unavailable"]
    assert [known_kind(kind) for kind in ("astonished", None, 3)] == ["garbage"] * 3


@pytest.mark.parametrize(
    ("kind", "exit_code"), [("plan", 2), ("model", 2), ("refused", 3), ("died", 3)]
)
def test_a_users_mistake_ends_a_lone_command_as_one(kind: str, exit_code: int) -> None:
    assert error_class(kind).exit_code == exit_code


def test_the_docs_list_every_kind_and_no_other() -> None:
    text = (Path(__file__).parents[2] / "docs" / "measuring.md").read_text()
    table = text.partition("| kind | what happened |")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == set(FAILURE_KINDS)
