"""What a user names: functions of the package, and models that become workloads."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hwprof
from hwprof import api
from hwprof.api.models import as_workload, check_inputs, require_batch
from hwprof.errors import ModelError, PlanError
from hwprof.workload import Workload


def test_every_command_of_the_api_is_one_of_the_package() -> None:
    assert all(callable(getattr(hwprof, name)) for name in hwprof.__all__)
    commands = {n for n in api.__all__ if inspect.isfunction(getattr(api, n))}
    assert commands - set(hwprof.__all__) == {"search_te_nas"}  # of another type than a search's


# mypy reads this as well: a package would be no callable to it.
PACKAGES: dict[str, Callable[..., object]] = {"devices": hwprof.devices, "search": hwprof.search}


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_that_is_a_command_shows_what_it_takes(name: str) -> None:
    assert inspect.signature(PACKAGES[name]) == inspect.signature(getattr(api, name))


@pytest.mark.parametrize("name", ["net.onnx", "package.module:function", "proxyless-gpu"])
def test_the_seed_reaches_the_inputs_of_every_kind_of_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.onnx").write_bytes(b"")
    assert as_workload(name).seed == 0
    assert as_workload(name, seed=7).seed == 7


def test_a_batch_size_that_a_model_does_not_have_is_refused(tmp_path: Path) -> None:
    model = tmp_path / "net.onnx"
    model.write_bytes(b"")
    for name in (model, "package.module:function"):
        with pytest.raises(PlanError, match=r"--batch 8 is for networks of a space"):
            require_batch(as_workload(name, ["x=1x3x8x8"]), 8)
        require_batch(as_workload(name, ["ids=8x3:int64", "x=1x3"]), 8)
        require_batch(as_workload(name), 1)
    require_batch(as_workload("proxyless-gpu"), 8)
    for ask in (api.bench, api.bench_parts, api.compare):
        models = [model] * (2 if ask is api.compare else 1)
        with pytest.raises(PlanError, match="--batch 8"):
            ask(*models, device="null", batch=8)


def test_an_input_that_is_given_twice_is_refused() -> None:
    with pytest.raises(ModelError, match="input 'x' is given more than once"):
        as_workload("package.module:function", ["x=1x3", "y=1", "x=2x3"])


@pytest.mark.parametrize("dtype", ["object", "str", "complex64", "bfloat"])
def test_a_type_of_which_no_input_is_drawn_is_refused(dtype: str) -> None:
    with pytest.raises(ModelError, match="cannot read the input"):
        as_workload("package.module:function", [f"x=1x3:{dtype}"])


@pytest.mark.parametrize(
    ("text", "value"),
    [("r=:int64=16000", 16000), ("f=1:bool=1", 1), ("x=2x3=0.5", 0.5), ("x=2x3", None)],
)
def test_an_input_may_bring_its_value(text: str, value: float | None) -> None:
    workload = as_workload("package.module:function", [text])
    assert workload.inputs[0].value == value
    assert Workload.from_json(json.loads(json.dumps(workload.to_json()))) == workload


@pytest.mark.parametrize(
    "text", ["r=:int8=300", "r=:int64=0.5", "r=:int64=", "f=:bool=2", "x=2=inf"]
)
def test_a_value_that_its_type_does_not_hold_is_refused(text: str) -> None:
    with pytest.raises(ModelError, match="cannot read the input"):
        as_workload("package.module:function", [text])


def test_an_input_may_be_empty() -> None:
    assert as_workload("package.module:function", ["past=1x8x0x64"]).inputs[0].shape == (
        1,
        8,
        0,
        64,
    )


def test_no_batch_size_at_all_is_refused() -> None:
    with pytest.raises(PlanError, match="no batch size is given"):
        api.bench_batches("proxyless-mobile", [], device="null")


def test_shapes_of_inputs_that_nothing_takes_are_refused(tmp_path: Path) -> None:
    model = tmp_path / "net.onnx"
    model.write_bytes(b"")
    given = ["image=1x3x8x8"]
    for ask in (api.bench, api.bench_parts, api.compare):
        models = ["proxyless-gpu"] * (2 if ask is api.compare else 1)
        with pytest.raises(PlanError, match=r"are for a model of your own; 'proxyless-gpu' is"):
            ask(*models, device="null", inputs=given)
    with pytest.raises(PlanError, match=r"\(--input\) are for a model"):
        api.bench_batches("proxyless-gpu", (1, 8), device="null", inputs=given)
    # Beside a network a model of one's own may need them.
    check_inputs(given, as_workload("proxyless-gpu"), as_workload(model, given))
    check_inputs((), as_workload("proxyless-gpu"))


@pytest.mark.parametrize("ask", [api.bench, api.bench_parts, api.compare])
def test_a_callable_without_inputs_is_refused_before_anything_is_loaded(ask: Any) -> None:
    names = ["package.module:net"] * (2 if ask is api.compare else 1)
    with pytest.raises(ModelError, match=r"'package.module:net' does not tell what it takes"):
        ask(*names, device="null")
