"""Reading a space's YAML: its fields by type, and errors that name file, line and expectation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard, TypeVar, cast

from hwprof.errors import SpaceError

T = TypeVar("T")
_REQUIRED: Any = object()
_KINDS: Mapping[type, str] = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "named fields",
}


def is_whole(value: object) -> TypeGuard[int]:
    """Return whether a value is a whole number; ``true`` and ``false`` are none."""
    return isinstance(value, int) and not isinstance(value, bool)


@dataclass(frozen=True, kw_only=True)
class Fields:
    """One mapping of a file. ``path`` leads to it; ``lines`` are 1-based, by dotted path."""

    data: Mapping[str, Any]
    where: str
    path: str = ""
    lines: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of_file(cls, data: Mapping[str, Any], where: str, text: str) -> Fields:
        """Return the fields of a file's text, which is valid YAML of ``data``."""
        import yaml

        return cls(data=data, where=where, lines=dict(_lines(yaml.compose(text), "")))

    def get(self, name: str, kind: type[T], default: Any = _REQUIRED) -> T:
        """Return a field of the type ``kind`` (a whole number will do for ``float``).

        Raises:
            SpaceError: it is missing and has no default, or is of another type.
        """
        value = self.data.get(name, default)
        wanted = (int, float) if kind is float else kind
        if not isinstance(value, wanted) or (isinstance(value, bool) and kind is not bool):
            raise self.wrong(name, _KINDS[kind])
        return cast("T", value)

    def positive(self, name: str) -> int:
        """Return a whole number from 1 up."""
        value = self.get(name, int)
        if value < 1:
            raise self.wrong(name, "a whole number from 1 up")
        return value

    def choice(self, name: str, allowed: tuple[str, ...]) -> Any:
        """Return one of the texts that are allowed."""
        value = self.get(name, str)
        if value not in allowed:
            raise self.wrong(name, f"one of {', '.join(allowed)}")
        return value

    def inside(self, name: str) -> Fields:
        """Return the fields of a mapping inside this one."""
        return Fields(
            data=self.get(name, dict), where=self.where, path=self._full(name), lines=self.lines
        )

    def each(self, name: str) -> Iterator[Fields]:
        """Yield the mappings of a list, which is not empty."""
        entries = self.get(name, list)
        if not entries or not all(isinstance(entry, dict) for entry in entries):
            raise self.wrong(name, "a list of entries with named fields")
        for index, entry in enumerate(entries):
            full = f"{self._full(name)}[{index}]"
            yield Fields(data=entry, where=self.where, path=full, lines=self.lines)

    def only(self, *known: str) -> None:
        """Refuse fields that mean nothing here."""
        for name in self.data:
            if name not in known:
                raise SpaceError(
                    f"{self._at(str(name))}: unknown field {self._full(str(name))}; expected "
                    f"{', '.join(known)}"
                )

    def wrong(self, name: str, expected: str) -> SpaceError:
        """Return the error for a field: file, line, field, value and what was expected."""
        if name not in self.data:
            place = self._at("") if self.path else self.where
            return SpaceError(f"{place}: {self._full(name)} is missing; expected {expected}")
        value = self.data[name]
        return SpaceError(f"{self._at(name)}: {self._full(name)} is {value!r}; expected {expected}")

    def _full(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path and name else self.path or name

    def _at(self, name: str) -> str:
        line = self.lines.get(self._full(name))
        return self.where if line is None else f"{self.where} line {line}"


def _lines(node: Any, path: str) -> Iterator[tuple[str, int]]:
    """Yield the line of every field below a node of YAML."""
    import yaml

    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            full = f"{path}.{key.value}" if path else str(key.value)
            yield full, key.start_mark.line + 1
            yield from _lines(value, full)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            full = f"{path}[{index}]"
            yield full, value.start_mark.line + 1
            yield from _lines(value, full)


def parse_yaml(text: str) -> Mapping[str, Any]:
    """Return the fields of a space's file.

    Raises:
        SpaceError: no YAML, or no mapping.
    """
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


def read_space_file(path: str | Path) -> tuple[str, Mapping[str, Any]]:
    """Return the text of a space's file, and the fields that it holds.

    Raises:
        SpaceError: the file cannot be read, or holds no fields.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        return text, parse_yaml(text)
    except SpaceError as error:
        raise SpaceError(f"{path}: {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise SpaceError(
            f"cannot read the space {str(path)!r} ({reason(error)}); expected a .yaml "
            "file that `hwprof reduce --out` wrote, or a design space of your own"
        ) from error


def reason(error: Exception) -> str:
    """Return why a file could not be read, without its name."""
    return getattr(error, "strerror", None) or str(error)
