"""Sizes as the command line takes them: `grid=8x56x56,num_heads=3,window=8x7x7`."""

import ast
from collections.abc import Sequence
from dataclasses import MISSING, Field, fields, replace
from typing import Any, TypeVar

Shape = TypeVar("Shape")


def text_of(shape: Any) -> str:
    """The fields of a shape that are not what they are by rule, but for its name."""
    parts = []
    for entry in _numbers(shape):
        value = getattr(shape, entry.name)
        if entry.name == "config":
            parts += [f"{name}={option}" for name, option in sorted(value.items())]
        elif entry.default is MISSING or value != entry.default:
            parts.append(f"{entry.name}={_written(value)}")
    return ",".join(parts)


def parse_shape(text: str, like: Shape) -> Shape:
    """A shape of the type of `like`, with its values for what `text` leaves out.

    Args:
        text: fields and values, `name=value,name=value`; triples as 8x56x56, options of a model by their names.
        like: a shape of the same subject.

    Raises:
        ValueError: a field is unknown, or its value is none; the message says what there is.
    """
    known = {entry.name: entry for entry in _numbers(like)}
    options = "config" in known
    changes: dict[str, Any] = {}
    config: dict[str, Any] = dict(getattr(like, "config", {}))
    for part in filter(None, text.split(",")):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or (name not in known and not options) or name == "config":
            raise ValueError(f"a size is given as {_example(like)}, got {part!r}")
        if name in known:
            changes[name] = _read(name, value, getattr(like, name))
        else:
            config[name] = _literal(value)
    if options:
        changes["config"] = config
    if hasattr(like, "name") and any(entry.name == "name" for entry in fields(like)):  # type: ignore[arg-type]
        changes["name"] = text
    return replace(like, **changes)  # type: ignore[type-var]


def _numbers(shape: Any) -> Sequence[Field[Any]]:
    return [entry for entry in fields(shape) if entry.name not in ("name", "model")]


def _example(like: Any) -> str:
    names = [entry.name for entry in _numbers(like) if entry.name != "config"]
    return f"{text_of(like)} (fields: {', '.join(names)}{'; and options of the model' if len(names) == 1 else ''})"


def _written(value: Any) -> str:
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _read(name: str, value: str, like: Any) -> Any:
    """The value of a field, of the kind that it has in another shape."""
    if isinstance(like, (bool, str)):
        read = _literal(value)
        if type(read) is not type(like):
            raise ValueError(f"{name} must be {'True or False' if isinstance(like, bool) else 'a name'}, got {value!r}")
        return read
    if value == "None":
        return None
    try:
        numbers = tuple(int(number) for number in value.split("x"))
    except ValueError:
        numbers = ()
    wanted = len(like) if isinstance(like, tuple) else 3 if like is None else 1
    if len(numbers) != wanted or min(numbers, default=-1) < 0:
        example = "x".join("2" * wanted)
        raise ValueError(f"{name} must be {wanted} number{'s' * (wanted > 1)} like {example}, got {value!r}")
    return numbers if wanted > 1 else numbers[0]


def _literal(value: str) -> Any:
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value
