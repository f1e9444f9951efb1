"""The agent as one file: the modules it imports, and nothing else of hwprof.

The file is the same for the same sources, byte for byte, and is named by its hash: it is copied
to a device once, and what is started there is what was built here.
"""

from __future__ import annotations

import ast
import hashlib
import io
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable

from hwprof.devices import BUILTIN

ROOTS = (
    "hwprof.devices.agent.supervisor",
    "hwprof.devices.agent.board_server",
    "hwprof.devices.agent.keeper",
    "hwprof.measure.worker",
)
_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A zip file that Python runs."""

    content: bytes
    digest: str


@cache
def agent_bundle() -> Bundle:
    """Return the agent, which can open every built-in adapter.

    An adapter of another package is not carried: that must be installed on the device.
    """
    adapters = [known.factory.partition(":")[0] for known in BUILTIN.values()]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        entry = _file("hwprof.devices.agent.entry")
        assert entry is not None
        _add(archive, "__main__.py", entry[1])
        for name, content in sorted(needed_files((*ROOTS, *adapters)).items()):
            _add(archive, name, content)
    content = buffer.getvalue()
    return Bundle(content=content, digest=hashlib.sha256(content).hexdigest())


def needed_files(roots: Iterable[str]) -> dict[str, bytes]:
    """Return path → source of every module of hwprof that ``roots`` import, at any depth."""
    found: dict[str, bytes] = {}
    waiting, seen = list(roots), set[str]()
    while waiting:
        module = waiting.pop()
        if module in seen:
            continue
        seen.add(module)
        file = _file(module)
        if file is None:  # a name inside a module, not a module
            continue
        path, content = file
        found[path] = content
        parent = module.rpartition(".")[0]
        waiting += [*([parent] if parent else []), *_imports(ast.parse(content))]
    return found


def _imports(tree: ast.AST) -> Iterator[str]:
    """Yield what a module of hwprof imports when it runs (types are not needed then)."""
    if isinstance(tree, ast.If) and ast.unparse(tree.test) == "TYPE_CHECKING":
        return
    names: list[str] = []
    if isinstance(tree, ast.Import):
        names = [alias.name for alias in tree.names]
    elif isinstance(tree, ast.ImportFrom) and tree.module:
        names = [tree.module, *(f"{tree.module}.{alias.name}" for alias in tree.names)]
    yield from (n for n in names if n.partition(".")[0] == "hwprof")
    for child in ast.iter_child_nodes(tree):
        yield from _imports(child)


def _file(module: str) -> tuple[str, bytes] | None:
    """Return a module's path below the import root, and its source; None where there is none."""
    package, *parts = module.split(".")
    place: Traversable = resources.files(package)
    for part in parts[:-1]:
        place = place / part
    last = place / parts[-1] if parts else place
    folder = "/".join([package, *parts])
    if (file := last / "__init__.py").is_file():
        return f"{folder}/__init__.py", file.read_bytes()
    if parts and (file := place / f"{parts[-1]}.py").is_file():
        return f"{folder}.py", file.read_bytes()
    return None


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    info = zipfile.ZipInfo(name, _EPOCH)
    info.compress_type = zipfile.ZIP_DEFLATED
    archive.writestr(info, content)
