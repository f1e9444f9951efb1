"""Imports point one way: core <- {devices, search, reports} <- {api, cli, pytest plugin}."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SIBLINGS = ("hwprof.devices", "hwprof.search", "hwprof.reports")
VENDOR = ("torch", "onnxruntime", "openvino", "tensorrt", "ai_edge_litert", "tflite_runtime")
PLOTTING = ("matplotlib", "plotly", "jinja2")
TORCH_IN_CORE = [ROOT / "hwprof" / "graph" / f"{name}.py" for name in ("torch_net", "from_torch")]


SEARCH_ROOMS = {
    "data": (),
    "supernets": (),
    "learning": ("data", "supernets"),
    "scoring": ("data", "supernets", "learning"),
    "strategies": ("data", "supernets", "learning", "scoring"),
    "proxyless": ("data", "supernets", "learning", "scoring"),
    "reducing": (),
}
"""Which folders of ``search/`` each of them may import; what drives a search stands above them."""


def layer_of(path: Path) -> str:
    top = path.relative_to(ROOT).parts
    if top[0] != "hwprof":
        return f"hwprof.{top[0]}"
    joining = ("api", "cli", "__main__.py", "__init__.py", "pytest_plugin.py")
    return "join" if top[1] in joining else "core"


def sources() -> list[Path]:
    folders = [ROOT / name for name in ("devices", "search", "reports")]
    own = [p for p in (ROOT / "hwprof").rglob("*.py") if not _behind_link(p)]
    return sorted([*own, *(p for f in folders for p in f.rglob("*.py"))])


def _behind_link(path: Path) -> bool:
    return path.relative_to(ROOT).parts[1] in ("devices", "search", "reports")


def imports(tree: ast.AST) -> list[tuple[str, bool]]:
    """Return imported module names, each with whether the import is at module level."""
    found = []
    top = set(ast.iter_child_nodes(tree))
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{a.name}" for a in node.names)]
        found += [(name, node in top) for name in names]
    return found


def starts(name: str, prefixes: tuple[str, ...]) -> bool:
    return any(name == p or name.startswith(p + ".") for p in prefixes)


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_import_direction(path: Path) -> None:
    layer = layer_of(path)
    if layer == "join":
        return
    for name, at_top in imports(ast.parse(path.read_text())):
        assert not starts(name, ("hwprof.api", "hwprof.cli")), f"{name} joins the layers"
        if layer == "core":
            assert not starts(name, SIBLINGS), f"the core imports {name}"
            assert not starts(name, PLOTTING), f"the core imports {name}"
            if path not in TORCH_IN_CORE:
                assert not starts(name, VENDOR), f"the core imports {name}"
            else:
                assert not (at_top and starts(name, VENDOR)), f"{name} at module level"
        else:
            others = tuple(s for s in SIBLINGS if s != layer)
            assert not starts(name, others), f"{layer} imports its sibling {name}"


@pytest.mark.parametrize("room", SEARCH_ROOMS)
def test_import_direction_inside_search(room: str) -> None:
    others = tuple(
        f"hwprof.search.{r}" for r in SEARCH_ROOMS if r not in (room, *SEARCH_ROOMS[room])
    )
    for path in (ROOT / "search" / room).rglob("*.py"):
        for name, _ in imports(ast.parse(path.read_text())):
            assert not starts(name, others), f"{path.name} imports {name}"


def test_the_rooms_of_search_are_all_known() -> None:
    assert {p.parent.name for p in (ROOT / "search").glob("*/__init__.py")} == set(SEARCH_ROOMS)


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    whole = parts if parts[0] == "hwprof" else ("hwprof", *parts)
    return ".".join(whole).removesuffix(".__init__")


def test_no_modules_import_each_other() -> None:
    """Late imports count, those for types alone do not; ``prepare`` names the circle."""
    trees = {module_of(path): ast.parse(path.read_text()) for path in sources()}
    needs: dict[str, set[str]] = {module: set() for module in trees}
    for module, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
                node.body = []
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module in trees:
                named = {f"{node.module}.{alias.name}" for alias in node.names}
                modules = named & trees.keys()
                needs[module] |= modules if modules == named else {*modules, node.module}
    TopologicalSorter(needs).prepare()


def test_the_check_sees_the_whole_tree() -> None:
    assert {layer_of(p) for p in sources()} == {"core", "join", *SIBLINGS}
