"""Each upstream's names lead to transformers' logits; positions of another size."""

import re
from collections.abc import Callable

import pytest
import timesformer_dialects as dialects
import torch
from oracles import huggingface_timesformer, small_swin, small_timesformer
from torch import Tensor

from vtfast.checkpoints import load_checkpoint
from vtfast.models import FeatureExtractor

StateDict = dict[str, Tensor]

CLIP = torch.randn(2, 3, 3, 48, 48, generator=torch.Generator().manual_seed(0))


def as_it_is(weights: StateDict) -> StateDict:
    return weights


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model", "model_state"])
@pytest.mark.parametrize(
    ("dialect", "upstream"),
    [
        (as_it_is, "Hugging Face TimeSformer"),
        (dialects.bare, "official TimeSformer"),
        (dialects.official, "official TimeSformer"),
        (dialects.mmaction2, "mmaction2 TimeSformer"),
    ],
)
@pytest.mark.parametrize("attention_type", ["divided", "joint"])
def test_video_weights(
    attention_type: str, dialect: Callable[[StateDict], StateDict], upstream: str, wrapper: str | None
) -> None:
    oracle, model = huggingface_timesformer(attention_type), small_timesformer(attention_type=attention_type)
    weights = dialect(oracle.state_dict())
    report = load_checkpoint(model, {wrapper: weights, "epoch": 30} if wrapper else weights)
    assert report.upstream == upstream
    assert set(report.loaded) == set(model.state_dict())
    torch.testing.assert_close(model(CLIP), oracle(CLIP.transpose(1, 2)).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("dialect", "upstream"),
    [
        (as_it_is, "Hugging Face TimeSformer"),
        (dialects.official, "official TimeSformer"),
        (dialects.mmaction2, "mmaction2 TimeSformer"),
    ],
)
def test_space_only_weights(dialect: Callable[[StateDict], StateDict], upstream: str) -> None:
    oracle, model = huggingface_timesformer("space"), small_timesformer(attention_type="space")
    assert load_checkpoint(model, dialect(oracle.state_dict())).upstream == upstream
    still = CLIP[:, :, :1]
    torch.testing.assert_close(model(still), oracle(still.transpose(1, 2)).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("attention_type", ["divided", "joint", "space", "sparse", "axial"])
def test_own_weights(attention_type: str) -> None:
    model = small_timesformer(attention_type=attention_type)
    other = small_timesformer(attention_type=attention_type)
    for parameter in other.parameters():
        torch.nn.init.zeros_(parameter)
    assert load_checkpoint(other, model.state_dict()).upstream == "vtfast"
    assert torch.equal(model(CLIP), other(CLIP))
    extractor = FeatureExtractor(small_timesformer(attention_type=attention_type), out_indices=(0,))
    saved = FeatureExtractor(small_timesformer(attention_type=attention_type), out_indices=(0,))
    assert load_checkpoint(saved, extractor.state_dict()).upstream == "vtfast"
    load_checkpoint(saved, model.state_dict())
    torch.testing.assert_close(saved(CLIP), model.forward_intermediates(CLIP, [0]))


@pytest.mark.parametrize("attention_type", ["divided", "space"])
def test_image_weights_give_the_images_logits_on_a_still_clip(attention_type: str) -> None:
    """Time adds nothing at first, every frame is the image, and so is their mean."""
    image_model = huggingface_timesformer("space")
    model = new_model(attention_type)
    weights = dialects.timm_image(image_model.state_dict())
    assert load_checkpoint(model, weights | {"pre_logits.fc.weight": torch.zeros(1)}).upstream == "2D image ViT"
    image = torch.randn(2, 3, 1, 48, 48)
    logits = model(image.expand(-1, -1, 3, -1, -1))
    torch.testing.assert_close(logits, image_model(image.transpose(1, 2)).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("attention_type", ["divided", "joint", "sparse", "axial"])
def test_image_weights_fill_every_step(attention_type: str) -> None:
    weights = dialects.timm_image(huggingface_timesformer("space").state_dict())
    model = new_model(attention_type)
    report = load_checkpoint(model, weights)
    assert set(report.loaded) | set(report.kept) == set(model.state_dict())
    assert all(name == "time_embed" or ".fc." in name for name in report.kept)
    for index, block in enumerate(model.blocks):
        for step in block.steps.values():
            for own, upstream in (("norm", "norm1"), ("attn.qkv", "attn.qkv"), ("attn.proj", "attn.proj")):
                for kind in ("weight", "bias"):
                    value = step.get_parameter(f"{own}.{kind}")
                    assert torch.equal(value, weights[f"blocks.{index}.{upstream}.{kind}"])
            assert step.fc is None or not step.fc.weight.any()
    assert not model.time_embed.any()
    assert torch.equal(model.patch_embed.proj.weight[:, :, 0], weights["patch_embed.proj.weight"])


def new_model(attention_type: str) -> torch.nn.Module:
    """A small model whose layers behind a branch and embeddings of time are zero, as in a new one."""
    model = small_timesformer(attention_type=attention_type)
    for name, parameter in model.named_parameters():
        if ".fc." in name or name == "time_embed":
            torch.nn.init.zeros_(parameter)
    return model


def test_image_head_of_other_classes_leaves_the_models_own() -> None:
    weights = dialects.timm_image(huggingface_timesformer("space").state_dict())
    model = small_timesformer(num_classes=5)
    head = model.head.weight.clone()
    load_checkpoint(model, weights)
    assert torch.equal(model.head.weight, head)
    assert torch.equal(model.norm.weight, weights["norm.weight"])


def nearest(values: Tensor, count: int) -> Tensor:
    """Entry floor(i * old / new) of the first axis for each of the `count` new ones."""
    return values[[i * len(values) // count for i in range(count)]]


@pytest.mark.parametrize("dialect", [as_it_is, dialects.official, dialects.mmaction2, dialects.timm_image])
@pytest.mark.parametrize("resize", ["upstream", "corrected"])
def test_positions_of_another_size(resize: str, dialect: Callable[[StateDict], StateDict]) -> None:
    oracle = huggingface_timesformer()
    weights = dialect(oracle.state_dict())
    model = small_timesformer(image_size=(80, 32), num_frames=5, position_resize=resize)
    load_checkpoint(model, weights)
    places = oracle.timesformer.embeddings.position_embeddings[0]
    rows = nearest(places[1:].unflatten(0, (3, 3)), 5)
    expected = {
        "upstream": nearest(places[1:], 10),
        "corrected": nearest(rows.transpose(0, 1), 2).transpose(0, 1).flatten(0, 1),
    }[resize]
    assert torch.equal(model.pos_embed[0], torch.cat([places[:1], expected]))
    times = oracle.timesformer.embeddings.time_embeddings[0]
    assert torch.equal(model.time_embed[0], nearest(times, 5))


def test_corrected_positions_are_those_of_the_forward() -> None:
    source = small_timesformer()
    model = small_timesformer(image_size=(80, 32), num_frames=5, position_resize="corrected")
    load_checkpoint(model, source.state_dict())
    clip = torch.randn(1, 3, 5, 80, 32)
    assert torch.equal(model(clip), source(clip))


@pytest.mark.parametrize("resize", ["upstream", "corrected"])
def test_as_many_places_stay_where_they_are(resize: str) -> None:
    source = small_timesformer(image_size=(16, 144))
    model = small_timesformer(image_size=(144, 16), position_resize=resize)
    load_checkpoint(model, source.state_dict())
    assert torch.equal(model.pos_embed, source.pos_embed)


def test_places_of_no_square_are_not_corrected() -> None:
    source, model = small_timesformer(image_size=(16, 80)), small_timesformer(position_resize="corrected")
    with pytest.raises(ValueError, match=r"pos_embed \(model \(1, 10, 48\), checkpoint \(1, 6, 48\)\)"):
        load_checkpoint(model, source.state_dict())


@pytest.mark.parametrize(
    ("given", "wanted", "message"),
    [
        ("divided", "joint", r"unexpected \(16\): blocks.0.temporal_"),
        ("divided", "sparse", r"missing \(28\): blocks.0.steps.over_local.norm.weight"),
        ("divided", "axial", r"missing \(28\): blocks.0.steps.over_width.norm.weight"),
        ("joint", "divided", r"missing \(16\): blocks.0.steps.over_time.norm.weight"),
        ("joint", "space", r"unexpected \(1\): time_embed"),
        ("space", "joint", r"missing \(1\): time_embed"),
    ],
)
def test_another_scheme_is_refused(given: str, wanted: str, message: str) -> None:
    weights = dialects.official(huggingface_timesformer(given).state_dict())
    model = small_timesformer(attention_type=wanted)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"\(names of official TimeSformer\) does not fit TimeSformer") as caught:
        load_checkpoint(model, weights)
    assert re.search(message, str(caught.value))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_own_weights_of_another_scheme_are_refused() -> None:
    with pytest.raises(ValueError, match=r"missing \(28\): blocks.0.steps.over_local.norm.weight"):
        load_checkpoint(new_model("sparse"), new_model("divided").state_dict())


def test_head_of_other_classes_names_the_remedies() -> None:
    weights = dialects.mmaction2(huggingface_timesformer().state_dict())
    with pytest.raises(ValueError, match="head has 7 classes") as caught:
        load_checkpoint(small_timesformer(num_classes=5), weights)
    assert "head.weight (model (5, 48), checkpoint (7, 48))" in str(caught.value)


def test_model_without_head_takes_the_body() -> None:
    oracle, model = huggingface_timesformer(), small_timesformer(num_classes=0)
    load_checkpoint(model, oracle.state_dict())
    body = oracle.timesformer(CLIP.transpose(1, 2)).last_hidden_state
    torch.testing.assert_close(model(CLIP), body[:, 0], rtol=1e-5, atol=1e-5)
    other = small_timesformer(num_classes=0)
    assert load_checkpoint(other, oracle.timesformer.state_dict()).upstream == "Hugging Face TimeSformer"
    assert torch.equal(other(CLIP), model(CLIP))


def test_another_architecture_is_refused() -> None:
    weights = dialects.official(huggingface_timesformer().state_dict())
    with pytest.raises(ValueError, match=r"\(names of official TimeSformer\) does not fit VideoSwin"):
        load_checkpoint(small_swin(), weights)
    image = dialects.timm_image(huggingface_timesformer("space").state_dict())
    with pytest.raises(ValueError, match=r"\(names of 2D image ViT\) does not fit VideoSwin"):
        load_checkpoint(small_swin(), image)
    with pytest.raises(ValueError, match=r"\(names of vtfast\) does not fit TimeSformer"):
        load_checkpoint(small_timesformer(), small_swin().state_dict())
