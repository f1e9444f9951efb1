"""Every name of TensorRT's that the adapter uses exists in the bindings of both major versions."""

from __future__ import annotations

import ast
import json
import types
from collections.abc import Iterator
from enum import Enum
from pathlib import Path

import pytest

from tests.devices import fake_tensorrt

ROOT = Path(__file__).parents[2]
GOLDEN = json.loads((ROOT / "tests/golden/tensorrt_api.json").read_text())
SOURCES = sorted((ROOT / "devices/nvidia").glob("tensorrt*.py"))
VERSIONS = sorted(GOLDEN["versions"])

MODULE = "trt"
RECEIVERS = {
    # What variables of these names hold, in every file of the adapter.
    "builder": "Builder",
    "network": "INetworkDefinition",
    "network_input": "ITensor",
    "config": "IBuilderConfig",
    "profile": "IOptimizationProfile",
    "timing_cache": "ITimingCache",
    "parser": "OnnxParser",
    "parser_error": "ParserError",
    "runtime": "Runtime",
    "engine": "ICudaEngine",
    "context": "IExecutionContext",
    "inspector": "EngineInspector",
    "trt_dtype": "DataType",
}


def holder(node: ast.expr) -> str:
    """Return the name of what an attribute is taken of: ``self._trt`` and ``trt`` are one."""
    if isinstance(node, ast.Name):
        return node.id.lstrip("_")
    return node.attr.lstrip("_") if isinstance(node, ast.Attribute) else ""


def uses(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield (class, member) of TensorRT that a source uses; the class is empty for the module."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute):
            continue
        if (name := holder(node.value)) == MODULE:
            yield "", node.attr
        elif name in RECEIVERS:
            yield RECEIVERS[name], node.attr
        if isinstance(node.value, ast.Attribute) and holder(node.value.value) == MODULE:
            yield node.value.attr, node.attr
        elif isinstance(node.value, ast.Attribute) and isinstance(node.value.value, ast.Attribute):
            inner = node.value.value
            if holder(inner.value) == MODULE:
                yield f"{inner.attr}.{node.value.attr}", node.attr


USED = {
    (kind, name)
    for source in SOURCES
    for kind, name in uses(ast.parse(source.read_text()))
    if not name.startswith("__") or kind == ""
}


def has(version: str, kind: str, name: str) -> bool:
    found = GOLDEN["versions"][version]
    return name in (found["names"] if kind == "" else found["members"].get(kind, ()))


@pytest.mark.parametrize("version", VERSIONS)
def test_what_the_adapter_uses_exists(version: str) -> None:
    missing = sorted(f"{k}.{n}" for k, n in USED if not has(version, k, n) and n != "__init__")
    assert missing == []


def test_both_major_versions_are_held() -> None:
    assert [version.partition(".")[0] for version in VERSIONS] == ["10", "11"]


def test_every_kind_of_object_was_found_in_the_sources() -> None:
    """A renamed variable would else drop out of the test above without a word."""
    assert {kind for kind, _ in USED if kind} >= {*RECEIVERS.values(), "ILogger.Severity"}
    expected = {
        ("Builder", "build_serialized_network"),
        ("IExecutionContext", "execute_async_v3"),
        ("IExecutionContext", "report_to_profiler"),
        ("OnnxParser", "parse_from_file"),
        ("NetworkDefinitionCreationFlag", "STRONGLY_TYPED"),
        ("Runtime", "deserialize_cuda_engine"),
        ("", "IProfiler"),
    }
    assert expected <= USED


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("BuilderFlag", "FP16"),
        ("IBuilderConfig", "int8_calibrator"),
        ("ICudaEngine", "device_memory_size"),
        ("NetworkDefinitionCreationFlag", "EXPLICIT_BATCH"),
    ],
)
def test_the_golden_file_knows_what_is_gone_in_11(kind: str, name: str) -> None:
    """Names that NVIDIA's migration guide to TensorRT 11 lists as removed."""
    assert has(VERSIONS[0], kind, name)
    assert not has(VERSIONS[1], kind, name)


def test_a_name_that_does_not_exist_is_seen() -> None:
    found = set(uses(ast.parse("self._context.execute_async_v2(0); trt.BuilderFlag.FP16")))
    assert {("IExecutionContext", "execute_async_v2"), ("BuilderFlag", "FP16")} <= found
    assert not has(VERSIONS[1], "IExecutionContext", "execute_async_v2")


@pytest.mark.parametrize("version", VERSIONS)
def test_the_fake_plays_nothing_that_does_not_exist(version: str) -> None:
    missing = []
    for kind in fake_tensorrt.__all__:
        cls = getattr(fake_tensorrt, kind)
        names = cls.__members__ if issubclass(cls, Enum) else vars(cls)
        missing += [
            f"{kind}.{name}"
            for name, value in names.items()
            if not name.startswith("_")
            and isinstance(value, types.FunctionType | property | Enum | int)
            and not has(version, kind, name)
        ]
    assert missing == []
