"""Weights of timesformer-pytorch: names, shapes, and what they say about the model's options."""

from typing import Any

import pytest
import torch
from lucidrains import small_lucidrains, small_upstream

from vtfast.checkpoints import load_checkpoint
from vtfast.models import FeatureExtractor

CLIP = torch.randn(2, 3, 5, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "config",
    [{}, {"shift_tokens": True}, {"rotary_emb": False}, {"in_channels": 2}],
    ids=["rotary", "shift", "positions", "channels"],
)
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
def test_every_weight_is_loaded(config: dict[str, Any], wrapper: str | None) -> None:
    oracle, model = small_upstream(**config), small_lucidrains(**config)
    weights = oracle.state_dict()
    report = load_checkpoint(model, {wrapper: weights} if wrapper else weights)
    assert report.upstream == "timesformer-pytorch"
    assert set(report.loaded) == set(model.state_dict())
    clip = CLIP[:, : config.get("in_channels", 3)]
    torch.testing.assert_close(model(clip), oracle(clip.transpose(1, 2)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("config", [{}, {"rotary_emb": False}], ids=["rotary", "positions"])
def test_own_weights(config: dict[str, Any]) -> None:
    model, other = small_lucidrains(**config), small_lucidrains(**config)
    for parameter in other.parameters():
        torch.nn.init.zeros_(parameter)
    assert load_checkpoint(other, model.state_dict()).upstream == "vtfast"
    assert torch.equal(model(CLIP), other(CLIP))


def test_half_precision_weights() -> None:
    weights = {name: value.bfloat16() for name, value in small_upstream().state_dict().items()}
    load_checkpoint(small_lucidrains(), weights)


def test_model_without_head_and_feature_extractor_take_what_they_have() -> None:
    oracle, model = small_upstream(), small_lucidrains(num_classes=0)
    extractor = FeatureExtractor(small_lucidrains(), out_indices=(0,))
    for target in (model, extractor):
        load_checkpoint(target, oracle.state_dict())
    torch.testing.assert_close(extractor(CLIP), model.forward_intermediates(CLIP, [0]))
    oracle.to_out[1] = torch.nn.Identity()
    torch.testing.assert_close(model(CLIP), oracle(CLIP.transpose(1, 2)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shifts", [False, True])
def test_refuses_weights_of_a_model_that_shifts_otherwise(shifts: bool) -> None:
    weights = small_upstream(shift_tokens=shifts).state_dict()
    message = f"shift_tokens must be {shifts} as in the checkpoint, got a model with {not shifts}"
    with pytest.raises(ValueError, match=message):
        load_checkpoint(small_lucidrains(shift_tokens=not shifts), weights)


def test_refuses_heads_of_another_size_that_add_up_to_the_same_shapes() -> None:
    weights = small_upstream(num_heads=4, head_dim=16).state_dict()
    with pytest.raises(
        ValueError, match=r"head_dim must be .* 8 frequencies from 1 to .*, but head_dim = 8 has 4 from"
    ):
        load_checkpoint(small_lucidrains(num_heads=8, head_dim=8), weights)


def test_refuses_other_frequencies() -> None:
    weights = small_upstream().state_dict()
    weights["image_rot_emb.scales"] = 2 * weights["image_rot_emb.scales"]
    with pytest.raises(
        ValueError, match=r"image_rot_emb\.scales in it has 4 frequencies from 10 to 2, but head_dim = 16"
    ):
        load_checkpoint(small_lucidrains(), weights)


def test_lists_positions_that_only_one_of_both_has() -> None:
    with pytest.raises(ValueError, match=r"unexpected \(1\): pos_embed"):
        load_checkpoint(small_lucidrains(), small_upstream(rotary_emb=False).state_dict())
    with pytest.raises(ValueError, match=r"missing \(1\): pos_embed"):
        load_checkpoint(small_lucidrains(rotary_emb=False), small_upstream().state_dict())


def test_lists_what_has_another_shape() -> None:
    weights = small_upstream(patch_size=16, num_classes=5).state_dict()
    with pytest.raises(
        ValueError, match=r"of another shape \(3\): patch_embed.proj.weight .*, head.weight .*, head.bias"
    ):
        load_checkpoint(small_lucidrains(), weights)
