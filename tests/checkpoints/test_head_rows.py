"""Rows of a head by the labels of their classes."""

from collections.abc import Mapping, Sequence

import pytest
import torch
from oracles import small_swin
from torch import Tensor

from vtfast import create_model
from vtfast.checkpoints import KINETICS_710_NAMES, label_rows, load_checkpoint

SEVEN = ["riding a bike", "tying tie", "Sipping Cup", "massaging person's head", "drop-kicking", "abseiling", "zumba"]


def test_labels_are_found_by_their_words() -> None:
    labels = ["Abseiling", "riding_a_bike", '"massaging_persons_head"', "drop kicking"]
    assert label_rows(SEVEN, labels) == (5, 0, 3, 4)
    assert label_rows(SEVEN, SEVEN) == tuple(range(7))


def test_aliases_name_what_is_called_otherwise() -> None:
    assert label_rows(SEVEN, ["zumba", "drinking"], aliases=KINETICS_710_NAMES) == (6, 2)
    # A label that is there needs no alias.
    assert label_rows(SEVEN, ["tying tie"], aliases=KINETICS_710_NAMES) == (1,)


@pytest.mark.parametrize(
    ("labels_from", "labels_to", "aliases", "message"),
    [
        (SEVEN, ["zumba", "yoga", "surfing"], {}, r"labels_to must be among labels_from .* missing 'yoga', 'surfing'"),
        (SEVEN, ["yoga"], {"yoga": "pilates"}, "missing 'yoga'"),
        ([*SEVEN, "ZUMBA"], ["zumba"], {}, "labels_from must be different labels, got 'zumba', 'ZUMBA' more than once"),
        (SEVEN, ["zumba", "_zumba"], {}, "labels_to must be different labels, got 'zumba', '_zumba' more than once"),
        (SEVEN, ["zumba", "samba"], {"samba": "zumba"}, "aliases must lead to different rows, .* 'zumba', 'samba'"),
    ],
)
def test_labels_that_lead_nowhere(
    labels_from: Sequence[str], labels_to: Sequence[str], aliases: Mapping[str, str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        label_rows(labels_from, labels_to, aliases=aliases)


def weights_of_seven() -> dict[str, Tensor]:
    weights = small_swin(num_classes=7).state_dict()
    return weights | {"head.weight": torch.randn(7, 128), "head.bias": torch.randn(7)}


@pytest.mark.parametrize("rows", [(5, 0, 3), range(3)])
def test_a_model_of_fewer_classes(rows: Sequence[int]) -> None:
    weights, model = weights_of_seven(), small_swin(num_classes=3)
    load_checkpoint(model, weights, head_rows=rows)
    assert torch.equal(model.head.weight, weights["head.weight"][list(rows)])
    assert torch.equal(model.head.bias, weights["head.bias"][list(rows)])
    small = {"embed_dim": 16, "depths": (2, 2, 1, 1), "num_heads": (1, 2, 4, 4), "window": (4, 3, 3)}
    created = create_model("swin3d_t", num_classes=3, checkpoint=weights, head_rows=rows, **small)
    assert torch.equal(created.head.weight, model.head.weight)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ((0, 1, 7), r"from 0 to 6, the classes of head.weight in the checkpoint, got \[7\]"),
        ((0, -1, 2), r"got \[-1\]"),
        ((2, 0, 2), r"must not repeat a row, got \[2\] more than once"),
        ((0, 1), r"head.weight \(model \(3, 128\), checkpoint \(2, 128\)\)"),
    ],
)
def test_rows_that_are_none(rows: Sequence[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_checkpoint(small_swin(num_classes=3), weights_of_seven(), head_rows=rows)


def test_rows_without_a_head_or_a_checkpoint() -> None:
    with pytest.raises(ValueError, match="without head"):
        load_checkpoint(small_swin(num_classes=0), weights_of_seven(), head_rows=(0,))
    with pytest.raises(ValueError, match="head_rows needs a checkpoint"):
        create_model("swin3d_t", head_rows=(0,))
