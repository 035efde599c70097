"""Rows of a head by the names of their classes: a head of many classes, such as Kinetics-710, for some of them.

The order of the classes is that of the list a model was trained with, and no file of weights says which it was:

- The authors of UniFormer and UniFormerV2 count the classes of Kinetics in an order of their own ("riding a bike",
  "marching", "dodgeball" for Kinetics-400 of UniFormer). The first 400 rows of their Kinetics-710 are their
  Kinetics-400; for Kinetics-600 and -700 they publish the rows as lists of numbers beside the data.
- mmaction2 moved the rows of the authors' heads into the order of its own lists, alphabetical for Kinetics-400, -600
  and -700. The first 400 rows of its Kinetics-710 are its Kinetics-400 as well.

Source: the authors' code of UniFormerV2; labels and rows of mmaction2.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from torch import Tensor

#: Beginnings of the names of heads: the one of every model, and that of the class token of a light UniFormer.
HEADS = ("head.", "head_cls.")

_MAX_LISTED = 8

#: What Kinetics-710 calls the classes of Kinetics-400, -600 and -700 that have another name there, as mmaction2 maps
#: them; for `aliases` of `label_rows`.
KINETICS_710_NAMES: Mapping[str, str] = {
    "balloon blowing": "inflating balloons",
    "changing wheel": "changing wheel (not on bike)",
    "cooking sausages": "cooking sausages (not on barbeque)",
    "drinking": "sipping cup",
    "dying hair": "dyeing hair",
    "garbage collecting": "person collecting garbage",
    "hugging": "hugging (not baby)",
    "making bed": "making the bed",
    "opening bottle": "opening bottle (not wine)",
    "picking fruit": "picking apples",
    "skiing (not slalom or crosscountry)": "skiing mono",
    "sniffing": "smelling feet",
    "throwing ball (not baseball or American football)": "throwing ball",
    "tying tie": "tying necktie",
}


def label_rows(
    labels_from: Sequence[str], labels_to: Sequence[str], *, aliases: Mapping[str, str] | None = None
) -> tuple[int, ...]:
    """For each of `labels_to` its row in a head whose classes are `labels_from`: `head_rows` of `load_checkpoint`.

    Labels are the same if their words are: letters and digits count, in any case; apostrophes and quotes are dropped,
    and any other character only separates words. "massaging_persons_head" is "Massaging person's head".

    Args:
        labels_from: classes of the checkpoint in the order of its rows.
        labels_to: classes of the model in the order of its logits.
        aliases: what `labels_from` calls a label of `labels_to` that it lacks, such as `KINETICS_710_NAMES`.

    Raises:
        ValueError: a label stands twice in one of the lists, or is missing in `labels_from`; the message names them.
    """
    rows = _numbered(labels_from, "labels_from")
    _numbered(labels_to, "labels_to")
    other_names = {_words(label): _words(name) for label, name in (aliases or {}).items()}
    found = [_row(_words(label), rows, other_names) for label in labels_to]
    missing = [label for label, row in zip(labels_to, found, strict=True) if row is None]
    if missing:
        raise ValueError(f"labels_to must be among labels_from or named by aliases, missing {_listed(missing)}")
    numbers = tuple(row for row in found if row is not None)
    same = [label for label, row in zip(labels_to, numbers, strict=True) if numbers.count(row) > 1]
    if same:
        raise ValueError(f"aliases must lead to different rows, got the same for {_listed(same)}")
    return numbers


def with_head_rows(state_dict: Mapping[str, Tensor], rows: Sequence[int]) -> dict[str, Tensor]:
    """The weights with only these rows of every head, in this order.

    Raises:
        ValueError: there is no head, a row is not one of its, or stands twice.
    """
    selected = dict(state_dict)
    heads = [name for name in state_dict if name.startswith(HEADS)]
    if not heads:
        raise ValueError("head_rows must be None for a model or a checkpoint without head, got rows")
    if len(set(rows)) != len(rows):
        twice = [row for row, count in Counter(rows).items() if count > 1]
        raise ValueError(f"head_rows must not repeat a row, got {twice[:_MAX_LISTED]} more than once")
    for name in heads:
        classes = state_dict[name].shape[0]
        outside = [row for row in rows if not 0 <= row < classes]
        if outside:
            raise ValueError(
                f"head_rows must be from 0 to {classes - 1}, the classes of {name} in the checkpoint, "
                f"got {outside[:_MAX_LISTED]}"
            )
        selected[name] = state_dict[name][list(rows)]
    return selected


def _row(label: str, rows: Mapping[str, int], other_names: Mapping[str, str]) -> int | None:
    return rows[label] if label in rows else rows.get(other_names.get(label, ""))


def _numbered(labels: Sequence[str], argument: str) -> dict[str, int]:
    words = [_words(label) for label in labels]
    counts = Counter(words)
    twice = [label for label, word in zip(labels, words, strict=True) if counts[word] > 1]
    if twice:
        raise ValueError(f"{argument} must be different labels, got {_listed(twice)} more than once")
    return {word: row for row, word in enumerate(words)}


def _words(label: str) -> str:
    return " ".join(re.findall(r"[^\W_]+", re.sub("['\"`\u2019]", "", label.casefold())))


def _listed(labels: Sequence[str]) -> str:
    more = f", and {len(labels) - _MAX_LISTED} more" if len(labels) > _MAX_LISTED else ""
    return ", ".join(map(repr, labels[:_MAX_LISTED])) + more
