"""What the sections of a configuration share: typed fields, rules, presets, dotted overrides, JSON.

The sections themselves are in `config.py`, and in `synth/style.py`.
"""

import dataclasses
import difflib
import json
import math
import types
from collections.abc import Iterable
from typing import ClassVar

import numpy as np

# A field's annotation: str, int, float, bool, tuple[int, ...], tuple[str, ...], tuple[float, ...],
# tuple[float, float], or a section.
Kind = type | types.GenericAlias


class ConfigError(ValueError):
    """An invalid configuration: its message is one line for the user."""


class Section:
    """The base of all sections: a value is checked against its field's annotation, then by the section's rules."""

    path = ""  # the section's dotted name, as `--set` spells it
    presets: ClassVar[dict[str, "Section"]] = {}  # whole sections that `--set` can name
    __no_type_check__ = True  # tells jaxtyping's hook, under pytest, that __post_init__ checks the types

    def __post_init__(self):
        for f in dataclasses.fields(self):
            object.__setattr__(self, f.name, _plain(getattr(self, f.name)))
            self._require(_has_type(getattr(self, f.name), f.type), f.name, _describe(f.type))
        self._check()

    def _check(self):
        """The section's rules: uses `_require` for what the types do not express."""

    def _require(self, condition: bool, name: str, expected: str):
        if not condition:
            raise ConfigError(f"{_dotted(self.path, name)} = {getattr(self, name)!r}: expected {expected}")

    def _one_of(self, name: str, *choices: str):
        self._require(getattr(self, name) in choices, name, f"{', '.join(choices[:-1])} or {choices[-1]}")

    def _at_least(self, least: int | float, *names: str):
        for name in names:
            self._require(getattr(self, name) >= least, name, f"at least {least}")

    def _fraction(self, *names: str):
        for name in names:
            self._require(0 <= getattr(self, name) < 1, name, "at least 0 and below 1")


def override(config: Section, assignments: Iterable[str]):
    """`config` with fields set by assignments such as `model.stn.kind=tps` or `model.stn.features=16,32,64`.

    A value is parsed by its field's annotation; a section takes the name of one of its presets, `data.style=photo`. The
    order does not matter: presets are set before the fields that change them, and the rules are checked at the end. If
    a field is set twice, the last value counts. Raises ConfigError.
    """
    known = _field_types(type(config))
    values = dataclasses.asdict(config)
    for assignment in sorted(assignments, key=lambda a: not dataclasses.is_dataclass(known.get(a.partition("=")[0]))):
        name, equals, text = assignment.partition("=")
        if not equals:
            raise ConfigError(f"{assignment!r}: expected FIELD=VALUE, such as model.stn.kind=tps")
        if name not in known:
            raise _unknown_field(name, known)
        *sections, leaf = name.split(".")
        target = values
        for section in sections:
            target = target[section]
        if dataclasses.is_dataclass(known[name]):
            target[leaf] = dataclasses.asdict(_preset(name, text, known[name]))
        else:
            target[leaf] = _parse(name, text, known[name])
    return _build(type(config), values, known)


def to_json(config: Section) -> str:
    """The whole configuration as JSON, a nested object; `from_json` reads it back."""
    return json.dumps(dataclasses.asdict(config), indent=2)


def from_json(text: str, kind: type[Section]):
    """The configuration that `to_json` wrote; fields missing in it take their defaults. Raises ConfigError."""
    try:
        values = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"the configuration is not JSON: {error}") from None
    return _build(kind, values, _field_types(kind))


def differences(before: Section, now: Section) -> dict[str, tuple]:
    """The fields in which two configurations of one kind differ: both values, by dotted name."""
    found = {}
    for f in dataclasses.fields(now):
        old, new = getattr(before, f.name), getattr(now, f.name)
        if isinstance(new, Section):
            found |= differences(old, new)
        elif old != new:
            found[_dotted(now.path, f.name)] = old, new
    return found


def _preset(name: str, text: str, kind: type[Section]) -> Section:
    first = f"{name}.{dataclasses.fields(kind)[0].name}"
    if not kind.presets:
        raise ConfigError(f"{name} is a section: set one of its fields, such as {first}")
    if text not in kind.presets:
        names = ", ".join(sorted(kind.presets))
        raise ConfigError(f"{name} = {text}: expected one of {names}; or set one of its fields, such as {first}")
    return kind.presets[text]


def _build(section: type[Section], values: object, known: dict[str, Kind]):
    if not isinstance(values, dict):
        raise ConfigError(f"{section.path or 'the configuration'}: expected an object of fields, not {values!r}")
    arguments = {}
    for name, value in values.items():
        dotted = _dotted(section.path, name)
        if dotted not in known:
            raise _unknown_field(dotted, known)
        if dataclasses.is_dataclass(known[dotted]):
            value = _build(known[dotted], value, known)
        arguments[name] = value
    return section(**arguments)


def _parse(name: str, text: str, kind: Kind) -> object:
    try:
        if kind is bool:
            return {"true": True, "false": False}[text.lower()]
        if kind == tuple[int, ...]:
            return tuple(int(part) for part in text.split(","))
        if kind == tuple[str, ...]:
            return tuple(part.strip() for part in text.split(",") if part.strip())
        if kind == tuple[float, ...]:
            return tuple(float(part) for part in text.split(",") if part)
        if kind == tuple[float, float]:
            low, high = text.split(",")
            return float(low), float(high)
        return kind(text)  # str, int, float
    except (KeyError, ValueError):
        raise ConfigError(f"{name} = {text}: expected {_describe(kind)}") from None


def _plain(value: object) -> object:
    """Lists, as in JSON and notebooks, become tuples, and NumPy's numbers Python's."""
    if isinstance(value, list | tuple):
        return tuple(map(_plain, value))
    return value.item() if isinstance(value, np.generic) else value


def _has_type(value: object, kind: Kind) -> bool:
    if kind == tuple[int, ...]:
        return isinstance(value, tuple) and all(_has_type(part, int) for part in value)
    if kind == tuple[str, ...]:
        return isinstance(value, tuple) and all(isinstance(part, str) for part in value)
    if kind == tuple[float, ...]:
        return isinstance(value, tuple) and all(_has_type(part, float) for part in value)
    if kind == tuple[float, float]:
        return isinstance(value, tuple) and len(value) == 2 and all(_has_type(part, float) for part in value)
    if kind is float:  # an int will do; a NaN or an infinity would not survive JSON
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind)


def _describe(kind: Kind) -> str:
    names = {
        int: "an integer",
        float: "a number",
        str: "a string",
        bool: "true or false",
        tuple[int, ...]: "integers, such as 16,32,64",
        tuple[str, ...]: "several strings, separated by commas on the command line",
        tuple[float, ...]: "numbers, such as 3,1",
        tuple[float, float]: "two numbers, such as 0.5,2",
    }
    return names.get(kind) or f"a {kind.__name__}"


def _field_types(section: type[Section]) -> dict[str, Kind]:
    """Every dotted name below `section`, sections included, with its type."""
    known = {}
    for f in dataclasses.fields(section):
        known[_dotted(section.path, f.name)] = f.type
        if dataclasses.is_dataclass(f.type):
            known |= _field_types(f.type)
    return known


def _dotted(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _unknown_field(name: str, known: Iterable[str]) -> ConfigError:
    def likeness(candidate: str) -> float:  # of the whole name and of its last part: `stn.knd`, or `knd` alone
        pairs = [(name, candidate), (name.rpartition(".")[2], candidate.rpartition(".")[2])]
        return sum(difflib.SequenceMatcher(None, a, b).ratio() for a, b in pairs)

    return ConfigError(f"unknown configuration field {name}; the nearest is {max(known, key=likeness)}")
