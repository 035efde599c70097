"""New names for the entries of a state dict, by rules."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

Value = TypeVar("Value")

# A pattern for the beginning of a name, and what replaces it: text, a function of the match, or None to drop the entry.
Rule = tuple[str, str | Callable[[re.Match[str]], str] | None]


def rename(state_dict: Mapping[str, Value], rules: Sequence[Rule]) -> dict[str, Value]:
    """Applies to each name the first rule whose pattern matches its beginning; other names stay as they are."""
    renamed = {}
    for name, value in state_dict.items():
        new_name = _rename_one(name, rules)
        if new_name is not None:
            renamed[new_name] = value
    return renamed


def _rename_one(name: str, rules: Sequence[Rule]) -> str | None:
    for pattern, replacement in rules:
        match = re.match(pattern, name)
        if match and replacement is None:
            return None
        if match:
            new = replacement(match) if callable(replacement) else match.expand(str(replacement))
            return new + name[match.end() :]
    return name
