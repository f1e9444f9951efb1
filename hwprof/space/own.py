"""Design spaces of the user's own: a YAML file, or an entry point of a package.

A file is loaded by ``--space my_space.yaml``, or for every command by the environment variable
``HWPROF_SPACES`` (files, separated as in ``PATH``), which measuring workers inherit. A package
offers its spaces in the entry-point group ``hwprof.spaces``: name → a callable that returns a
:class:`~hwprof.space.DesignSpace` of that name.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import os
import re
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, get_args

from hwprof.errors import SpaceError
from hwprof.space.catalog import CATALOG
from hwprof.space.fields import Fields, is_whole, read_space_file
from hwprof.space.mbconv import MBConvLayout, MBConvSpace, UnitLayout
from hwprof.space.pieces import Activation
from hwprof.space.slotted import RESOLUTIONS_PX
from hwprof.space.space import DesignSpace

ENVIRONMENT = "HWPROF_SPACES"
ENTRY_POINTS = "hwprof.spaces"
KEY = "design_space"
"""The field that tells a design space from a reduced one; it holds the space's name."""
FORMAT = 1
REQUEST = "own_space"
"""Where a run's request holds the definition of its space."""
BLOCKS_MODULE = "hwprof_blocks_"
"""Begins the name under which a .py file of blocks is imported: no other machine has that file."""
ACTIVATIONS = get_args(Activation)
_NAME = re.compile(r"[a-z][a-z0-9._-]*")

_files: dict[str, Path] = {}
_loaded: dict[str, tuple[DesignSpace, Mapping[str, Any]]] = {}


def own_space_names() -> tuple[str, ...]:
    """Return the names of the spaces of loaded files and of entry points."""
    _load_environment()
    return (*_loaded, *(e.name for e in metadata.entry_points(group=ENTRY_POINTS)))


def own_space(name: str) -> DesignSpace | None:
    """Return the space of that name from a loaded file or an entry point, None where there is none.

    Raises:
        SpaceError: a file of ``HWPROF_SPACES`` or an entry point does not give a space.
    """
    _load_environment()
    if name in _loaded:
        return _loaded[name][0]
    for entry in metadata.entry_points(group=ENTRY_POINTS):
        if entry.name == name:
            return _from_entry_point(entry)
    return None


def load_all() -> None:
    """Load every file and entry point, so that the block families they bring are known."""
    _load_environment()
    for entry in metadata.entry_points(group=ENTRY_POINTS):
        _from_entry_point(entry)


def own_definition(name: str) -> Mapping[str, Any] | None:
    """Return the file's content behind a space, which a run keeps; None where there is no file."""
    return _loaded[name][1] if name in _loaded else None


def own_space_request(space: DesignSpace) -> dict[str, Any]:
    """Return what a run keeps of a space of the user's own; nothing of one that ships."""
    definition = own_definition(space.name)
    return {} if definition is None else {REQUEST: dict(definition)}


def load_own_space(path: Path, data: Mapping[str, Any], text: str) -> DesignSpace:
    """Build and register the space of a file, for this process and the workers it starts.

    Args:
        path: the file.
        data: its content.
        text: its text, for line numbers.

    Raises:
        SpaceError: naming the file, the line and field, and what was expected.
    """
    whole = path.resolve()
    definition = {**data, "folder": str(whole.parent)}
    space = _build(Fields.of_file(data, str(path), text), whole.parent)
    _remember(space, definition)
    listed = [p for p in os.environ.get(ENVIRONMENT, "").split(os.pathsep) if p]
    if str(whole) not in listed:
        os.environ[ENVIRONMENT] = os.pathsep.join([*listed, str(whole)])
    _files[str(whole)] = whole
    return space


def require_definition(request: Mapping[str, Any]) -> None:
    """Make the space that a run was made with known again, where it is not.

    Args:
        request: the run's; nothing happens where its space ships with hwprof.

    Raises:
        SpaceError: a space of that name is known and is another one.
    """
    definition = request.get(REQUEST)
    if definition is None:
        return
    name = str(definition[KEY])
    _load_environment()
    known = own_definition(name)
    if known is None and own_space(name) is None:
        fields = Fields(data=_content(definition), where="the run's own space")
        space = _build(fields, Path(definition["folder"]))
        _remember(space, definition)
    elif known is not None and _content(known) != _content(definition):
        raise SpaceError(
            f"the run was made with another {name!r} than the file that is loaded; give the "
            "changed space another name, or profile again"
        )


def _content(definition: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in definition.items() if k != "folder"}


def _remember(space: DesignSpace, definition: Mapping[str, Any]) -> None:
    known = _loaded.get(space.name)
    if known is not None and _content(known[1]) != _content(definition):
        raise SpaceError(
            f"two design spaces are called {space.name!r}; give one of the files another "
            f"{KEY} (loaded: {', '.join(_files) or 'from a run'})"
        )
    _loaded[space.name] = (space, definition)


def _load_environment() -> None:
    for listed in os.environ.get(ENVIRONMENT, "").split(os.pathsep):
        if listed and str(Path(listed).resolve()) not in _files:
            _load_listed(listed)


def _load_listed(path: str) -> None:
    text, data = read_space_file(path)
    if KEY not in data:
        raise SpaceError(
            f"{ENVIRONMENT} lists {path!r}, which is no design space of your own (no field "
            f"{KEY!r}): give a reduced space with --space"
        )
    load_own_space(Path(path), data, text)


def _from_entry_point(entry: metadata.EntryPoint) -> DesignSpace:
    made = entry.load()
    space = made() if callable(made) else made
    if not isinstance(space, DesignSpace) or space.name != entry.name:
        raise SpaceError(
            f"the entry point {entry.name!r} ({entry.value}) gives {space!r}; expected a "
            f"DesignSpace, or a callable that returns one, with the name {entry.name!r}"
        )
    return space


def _build(fields: Fields, folder: Path) -> MBConvSpace:
    fields.only(
        *("format", KEY, "resolution_px", "n_classes", "bn_eps", "stem", "first", "units"),
        *("head", "blocks"),
    )
    if fields.get("format", int) != FORMAT:
        raise fields.wrong("format", f"{FORMAT}")
    name = fields.get(KEY, str)
    if not _NAME.fullmatch(name) or name in CATALOG:
        raise fields.wrong(
            KEY, "a name of small letters, digits, '.', '_' and '-' that no other space has"
        )
    blocks = fields.get("blocks", str, default="")
    if blocks:
        _import_blocks(fields, blocks, folder)
    stem, first, head = (fields.inside(part) for part in ("stem", "first", "head"))
    stem.only("channels", "act")
    first.only("channels", "act", "shortcut")
    head.only("channels", "act", "last_channels")
    if first.get("shortcut", bool, default=False) and (
        stem.positive("channels") != first.positive("channels")
    ):
        raise first.wrong("shortcut", "false where stem and first have different channels")
    resolution_px, (least, most) = fields.get("resolution_px", int), RESOLUTIONS_PX
    if not least <= resolution_px <= most:
        raise fields.wrong("resolution_px", f"an image side of {least} to {most}")
    bn_eps, last_channels = fields.get("bn_eps", float, 1e-5), head.get("last_channels", int, 0)
    if not 0.0 < bn_eps < math.inf:
        raise fields.wrong("bn_eps", "a number above 0, such as 1.0e-5")
    if last_channels < 0:
        raise head.wrong("last_channels", "a whole number from 0 up (0: none)")
    layout = MBConvLayout(
        name=name,
        resolution_px=resolution_px,
        n_classes=fields.positive("n_classes"),
        bn_eps=float(bn_eps),
        stem_channels=stem.positive("channels"),
        stem_act=stem.choice("act", ACTIVATIONS),
        first_channels=first.positive("channels"),
        first_act=first.choice("act", ACTIVATIONS),
        first_shortcut=first.get("shortcut", bool, default=False),
        units=tuple(_unit(unit) for unit in fields.each("units")),
        head_channels=head.positive("channels"),
        head_act=head.choice("act", ACTIVATIONS),
        last_channels=last_channels,
    )
    try:
        return MBConvSpace.from_layout(layout)
    except SpaceError as error:
        raise SpaceError(f"{fields.where}: {error}") from error


def _unit(unit: Fields) -> UnitLayout:
    unit.only("channels", "stride", "depth", "act", "blocks", "squeeze_excite", "skip")
    depth = unit.get("depth", list)
    if not all(map(is_whole, depth)) or len(depth) != 2 or not 1 <= depth[0] <= depth[1]:
        raise unit.wrong("depth", "[least, most] layers, at least 1, such as [2, 4]")
    stride = unit.positive("stride")
    if stride > 2:
        raise unit.wrong("stride", "1 or 2")
    blocks = unit.get("blocks", list)
    named = all(isinstance(block, str) for block in blocks)
    if not blocks or not named or len(set(blocks)) < len(blocks):
        raise unit.wrong("blocks", "a list of block names, each once")
    return UnitLayout(
        channels=unit.positive("channels"),
        stride=stride,
        min_depth=depth[0],
        max_depth=depth[1],
        act=unit.choice("act", ACTIVATIONS),
        candidates=tuple(blocks),
        squeeze_excite=unit.get("squeeze_excite", bool, default=False),
        skip=unit.get("skip", bool, default=False),
    )


def _import_blocks(fields: Fields, blocks: str, folder: Path) -> None:
    """Import the module that registers block families: a .py beside the file, or a package's."""
    if not blocks.endswith(".py"):
        try:
            importlib.import_module(blocks)
        except ImportError as error:
            raise fields.wrong("blocks", f"an importable module or a .py file ({error})") from error
        return
    path = (folder / blocks).resolve()
    name = f"{BLOCKS_MODULE}{path.stem}"
    loaded = sys.modules.get(name)
    if loaded is not None and loaded.__file__ == str(path):
        return
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.exists():
        raise fields.wrong("blocks", f"a Python file; there is no {str(path)!r}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise fields.wrong(
            "blocks", f"a module that can be imported; it ends with {type(error).__name__}: {error}"
        ) from error
