"""Architectures and reduced spaces as files.

``reduced.yaml``, format 1: ``space``, ``resolution_px``, ``device``, ``fingerprint``, ``alive``
(unit → layer → block names), ``max_depth`` (per unit), ``accuracy_budget_points`` and ``drops``
(``rule``, ``unit``, ``layer``, ``block`` or ``depth``, the differences with their intervals).
"""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hwprof.errors import FormatVersionError, SpaceError
from hwprof.interval import Interval
from hwprof.space.architecture import Architecture, Slot
from hwprof.space.catalog import get_space, space_names, space_of
from hwprof.space.fields import is_whole
from hwprof.space.named import NAMED_ARCHITECTURES
from hwprof.space.own import ENVIRONMENT, KEY, load_own_space
from hwprof.space.reduction import Drop, Reduction
from hwprof.space.space import DesignSpace

FORMAT = 1
_HEADER = (
    "# A reduced design space: pass this file wherever a space is asked for (--space).\n"
    "# Latency differences are seconds, accuracy differences percentage points.\n"
)


def read_architecture(text_or_path: str) -> Architecture:
    """Read an architecture and check it against its space.

    Args:
        text_or_path: a named architecture (``proxyless-gpu``), ``-`` for JSON on standard
            input, the path of a JSON file, or the JSON itself.

    Raises:
        SpaceError: nothing of that name, no JSON, or not an architecture of its space.
    """
    if text_or_path in NAMED_ARCHITECTURES:
        return NAMED_ARCHITECTURES[text_or_path]
    if text_or_path == "-":
        source, text = "standard input", _read_standard_input()
    elif text_or_path.lstrip().startswith("{"):
        source, text = "the architecture", text_or_path
    else:
        source, text = text_or_path, _read_architecture_file(text_or_path)
    try:
        arch = Architecture.from_json(json.loads(text))
        space_of(arch).validate(arch)
    except json.JSONDecodeError as error:
        raise SpaceError(
            f"{source}: line {error.lineno} column {error.colno} is no JSON ({error.msg}); "
            'expected {"space": …, "resolution_px": …, "units": …}'
        ) from error
    except RecursionError as error:
        raise SpaceError(
            f"{source}: lists in lists without end; expected "
            '{"space": …, "resolution_px": …, "units": …}'
        ) from error
    except SpaceError as error:
        raise SpaceError(f"{source}: {error}") from error
    return arch


def _read_standard_input() -> str:
    try:
        return sys.stdin.read()
    except ValueError as error:
        raise SpaceError(
            f"standard input is no text ({error}); expected an architecture as JSON"
        ) from error


def reduction_to_yaml(reduction: Reduction) -> str:
    """Return the text of ``reduced.yaml``."""
    import yaml

    alive: dict[int, dict[int, list[str]]] = {}
    for slot, blocks in sorted(reduction.alive.items()):
        alive.setdefault(slot.unit, {})[slot.layer] = list(blocks)
    data = {
        "format": FORMAT,
        "space": reduction.space,
        "resolution_px": reduction.resolution_px,
        "device": reduction.device,
        "fingerprint": dict(reduction.fingerprint),
        "alive": alive,
        "max_depth": list(reduction.max_depth),
        "accuracy_budget_points": reduction.accuracy_budget_points,
        "drops": [_drop_to_data(drop) for drop in reduction.drops],
        "notes": list(reduction.notes),
    }
    body = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=100)
    return _HEADER + str(body)


def reduction_from_yaml(text: str) -> Reduction:
    """Read the text of a ``reduced.yaml``, evidence included.

    Only the form is checked; whether the blocks are the space's is asked by :func:`load_reduced`.

    Raises:
        FormatVersionError: another version of the format.
        SpaceError: no YAML, or a field that is missing or of the wrong type.
    """
    data = _parse_yaml(text)
    version = data.get("format")
    if version != FORMAT:
        raise FormatVersionError(
            f"format is {version!r}; this hwprof reads format {FORMAT}: write the file again with "
            "`hwprof reduce`"
        )
    budget = data.get("accuracy_budget_points")
    if budget is not None and not _is_number(budget):
        raise SpaceError(f"accuracy_budget_points is {budget!r}; expected a number or nothing")
    depths = _field(data, "max_depth", list)
    if not all(map(is_whole, depths)):
        raise SpaceError(f"max_depth is {depths!r}; expected a whole number for every unit")
    return Reduction(
        space=_field(data, "space", str),
        resolution_px=_field(data, "resolution_px", int),
        device=str(data.get("device") or ""),
        fingerprint=_optional(data, "fingerprint", dict),
        alive=_read_alive(_field(data, "alive", dict)),
        max_depth=tuple(depths),
        accuracy_budget_points=budget,
        drops=tuple(_read_drop(entry) for entry in _optional(data, "drops", list)),
        notes=tuple(str(note) for note in _optional(data, "notes", list)),
    )


def reduced_space(reduction: Reduction) -> DesignSpace:
    """Return the space that a reduction leaves.

    Raises:
        SpaceError: an unknown space or block, or a slot without a block.
    """
    if reduction.space not in space_names():
        raise SpaceError(
            f"space is {reduction.space!r}; expected a design space that `hwprof spaces` lists: one "
            f"of your own is named by {ENVIRONMENT}=my_space.yaml"
        )
    base = get_space(reduction.space, reduction.resolution_px)
    return base.restrict(reduction.alive, reduction.max_depth)


def load_reduced(path: str | Path) -> DesignSpace:
    """Return the design space of a ``reduced.yaml``.

    Raises:
        FormatVersionError: another version of the format.
        SpaceError: the file cannot be read, is damaged, or does not fit its space.
    """
    return _reduced_of(path, _space_file(path)[0])


def load_space_file(path: str | Path) -> DesignSpace:
    """Return the space of a ``.yaml`` file: one of the user's own, or a reduced one.

    Raises:
        FormatVersionError: another version of the format.
        SpaceError: the file cannot be read, is damaged, or describes no space.
    """
    text, data = _space_file(path)
    if KEY in data:
        return load_own_space(Path(path), data, text)
    return _reduced_of(path, text)


def load_listed_file(path: str | Path) -> DesignSpace:
    """Return the user's own space of a file that ``HWPROF_SPACES`` lists.

    Raises:
        SpaceError: as :func:`load_space_file`, or the file holds a reduced space.
    """
    text, data = _space_file(path)
    if KEY not in data:
        raise SpaceError(
            f"{ENVIRONMENT} lists {str(path)!r}, which is no design space of your own (no field "
            f"{KEY!r}): give a reduced space with --space"
        )
    return load_own_space(Path(path), data, text)


def _space_file(path: str | Path) -> tuple[str, Mapping[str, Any]]:
    """Return the text of a space's file, and the fields that it holds."""
    try:
        text = Path(path).read_text(encoding="utf-8")
        return text, _parse_yaml(text)
    except SpaceError as error:
        raise SpaceError(f"{path}: {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise SpaceError(
            f"cannot read the space {str(path)!r} ({_reason(error)}); expected a .yaml "
            "file that `hwprof reduce --out` wrote, or a design space of your own"
        ) from error


def _reduced_of(path: str | Path, text: str) -> DesignSpace:
    try:
        return reduced_space(reduction_from_yaml(text))
    except (FormatVersionError, SpaceError) as error:
        raise type(error)(f"{path}: {error}") from error


def _read_architecture_file(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        close = difflib.get_close_matches(path, NAMED_ARCHITECTURES, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise SpaceError(
            f"no architecture {path!r}: {hint}expected a JSON file, '-' for standard input, or "
            f"one of {', '.join(NAMED_ARCHITECTURES)}"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise SpaceError(
            f"cannot read the architecture {path!r} ({_reason(error)}); expected a JSON file"
        ) from error


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _parse_yaml(text: str) -> Mapping[str, Any]:
    import yaml

    try:
        data = yaml.safe_load(text)
    # ValueError: a date that is none.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1} " if mark else ""
        raise SpaceError(
            f"{where}is no YAML ({getattr(error, 'problem', None) or 'unreadable'}); mend the "
            "file or write it again with `hwprof reduce`"
        ) from error
    if not isinstance(data, dict):
        raise SpaceError(
            f"the file holds {type(data).__name__}, not the fields of a reduced space; write it "
            "with `hwprof reduce`"
        )
    return data


def _field(data: Mapping[str, Any], name: str, kind: type) -> Any:
    value = data.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise SpaceError(f"{name} is {value!r}; expected {_KINDS[kind]}")
    return value


def _optional(data: Mapping[str, Any], name: str, kind: type) -> Any:
    return kind() if data.get(name) is None else _field(data, name, kind)


_KINDS: Mapping[type, str] = {
    str: "a text",
    int: "a whole number",
    list: "a list",
    dict: "named entries",
}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _read_alive(data: Mapping[Any, Any]) -> dict[Slot, tuple[str, ...]]:
    alive = {}
    for unit, layers in data.items():
        if not is_whole(unit) or not isinstance(layers, dict):
            raise SpaceError(f"alive of unit {unit!r} is {layers!r}; expected layer → block names")
        for layer, blocks in layers.items():
            if not is_whole(layer) or not isinstance(blocks, list):
                raise SpaceError(
                    f"alive of unit {unit} layer {layer!r} is {blocks!r}; expected a list of "
                    "block names"
                )
            alive[Slot(unit, layer)] = tuple(str(block) for block in blocks)
    return alive


def _drop_to_data(drop: Drop) -> dict[str, Any]:
    data: dict[str, Any] = {"rule": drop.rule}
    for name in ("unit", "layer", "block", "depth"):
        value = getattr(drop, name)
        if value is not None:
            data[name] = value
    for name in ("latency_s", "accuracy_pct"):
        interval = getattr(drop, name)
        if interval is not None:
            data[name] = {k: float(v) for k, v in interval._asdict().items()}
    return {**data, "why": drop.why} if drop.why else data


def _read_drop(data: object) -> Drop:
    known = ("rule", "unit", "layer", "block", "depth", "latency_s", "accuracy_pct", "why")
    if not isinstance(data, dict) or "rule" not in data or set(data) - set(known):
        raise SpaceError(f"a drop is {data!r}; expected the fields {', '.join(known)}")
    return Drop(
        rule=data["rule"],
        unit=data.get("unit"),
        layer=data.get("layer"),
        block=data.get("block"),
        depth=data.get("depth"),
        latency_s=_read_interval(data.get("latency_s")),
        accuracy_pct=_read_interval(data.get("accuracy_pct")),
        why=data.get("why", ""),
    )


def _read_interval(data: object) -> Interval | None:
    if data is None:
        return None
    names = Interval._fields
    if (
        not isinstance(data, dict)
        or set(data) != set(names)
        or not all(map(_is_number, data.values()))
    ):
        raise SpaceError(f"an interval is {data!r}; expected the numbers {', '.join(names)}")
    return Interval(**data)
