"""Design spaces as files: the user's own, and reduced ones.

``reduced.yaml``, format 1: ``space``, ``resolution_px``, ``device``, ``fingerprint``, ``alive``
(unit → layer → block names), ``max_depth`` (per unit), ``accuracy_budget_points`` and ``drops``
(``rule``, ``unit``, ``layer``, ``block`` or ``depth``, the differences with their intervals).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hwprof.errors import FormatVersionError, SpaceError
from hwprof.interval import Interval
from hwprof.space.architecture import Slot
from hwprof.space.fields import is_whole, parse_yaml, read_space_file
from hwprof.space.lookup import named_space, space_names
from hwprof.space.own import ENVIRONMENT, KEY, load_own_space
from hwprof.space.reduction import Drop, Reduction
from hwprof.space.space import DesignSpace

FORMAT = 1
_HEADER = (
    "# A reduced design space: pass this file wherever a space is asked for (--space).\n"
    "# Latency differences are seconds, accuracy differences percentage points.\n"
)


def get_space(name_or_path: str, resolution_px: int | None = None) -> DesignSpace:
    """Return a design space by name, or the one of a ``.yaml`` file, reduced or the user's own.

    Args:
        name_or_path: a name that :func:`space_names` lists, or the path of a file.
        resolution_px: side of the input; without it the space's own (224, or 32 for CIFAR).

    Raises:
        SpaceError: no such space, or a file that is none.
    """
    if not name_or_path.endswith((".yaml", ".yml")):
        return named_space(name_or_path, resolution_px)
    space = load_space_file(name_or_path)
    return space if resolution_px is None else space.at_resolution(resolution_px)


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

    Only the form is checked; whether the blocks are the space's is asked by :func:`reduced_space`.

    Raises:
        FormatVersionError: another version of the format.
        SpaceError: no YAML, or a field that is missing or of the wrong type.
    """
    data = parse_yaml(text)
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
    base = named_space(reduction.space, reduction.resolution_px)
    return base.restrict(reduction.alive, reduction.max_depth)


def load_space_file(path: str | Path) -> DesignSpace:
    """Return the space of a ``.yaml`` file: one of the user's own, or a reduced one.

    Raises:
        FormatVersionError: another version of the format.
        SpaceError: the file cannot be read, is damaged, or describes no space.
    """
    text, data = read_space_file(path)
    if KEY in data:
        return load_own_space(Path(path), data, text)
    try:
        return reduced_space(reduction_from_yaml(text))
    except (FormatVersionError, SpaceError) as error:
        raise type(error)(f"{path}: {error}") from error


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
