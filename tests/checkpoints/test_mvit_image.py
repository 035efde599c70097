"""Image MViTs, inflated: the same model on one frame, and a start for video."""

from collections.abc import Callable
from typing import Any

import mvit_dialects as dialects
import pytest
import torch
import torch.nn.functional as F
from oracles import small_mvit, small_mvit_v2, small_timesformer
from torch import Tensor

from vtfast.checkpoints import load_checkpoint

StateDict = dict[str, Tensor]
Dialect = Callable[[StateDict], StateDict]

FRAME: dict[str, Any] = {
    "num_frames": 1,
    "patch_kernel": (1, 7, 7),
    "patch_stride": (1, 4, 4),
    "pool_kernel": (1, 3, 3),
}
SECOND_VERSION_DIALECTS = pytest.mark.parametrize("dialect", [dialects.slowfast_image, dialects.authors_image])
EVERY_DIALECT = pytest.mark.parametrize(
    "dialect", [dialects.slowfast_image, dialects.authors_image, dialects.pytorchvideo_image]
)


def image_v2(**config: Any) -> StateDict:
    """Weights of an image MViTv2, which has neither cls nor relative positions in time, as of a model of one frame."""
    return small_mvit_v2(**(FRAME | {"cls_token": False, "rel_pos_temporal": False} | config)).state_dict()


@EVERY_DIALECT
@pytest.mark.parametrize("cls_token", [True, False])
def test_a_model_of_one_frame_is_the_images(cls_token: bool, dialect: Dialect) -> None:
    image, model = small_mvit(**FRAME, cls_token=cls_token), small_mvit(**FRAME, cls_token=cls_token)
    for parameter in model.parameters():
        torch.nn.init.ones_(parameter)
    if dialect is not dialects.pytorchvideo_image:
        torch.nn.init.zeros_(image.pos_embed_temporal)
    report = load_checkpoint(model, {"model_state": dialect(image.state_dict())})
    assert report.upstream == "2D image MViT"
    assert set(report.loaded) | set(report.kept) == set(model.state_dict())
    assert all(torch.equal(value, model.get_parameter(name)) for name, value in image.state_dict().items())


@SECOND_VERSION_DIALECTS
def test_convolutions_are_repeated_over_time(dialect: Dialect) -> None:
    image, model = image_v2(), small_mvit_v2()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for name in image:
        image[name] = image[name] + 1
    assert load_checkpoint(model, dialect(image)).upstream == "2D image MViT"
    for name, value in model.state_dict().items():
        if name == "cls_token" or name.endswith("rel_pos_t"):
            assert torch.equal(value, before[name])
        else:
            assert torch.equal(value, image[name].expand_as(value))
    assert model.patch_embed.proj.weight.shape[2] == model.blocks[0].attn.pool_q.weight.shape[2] == 3


@EVERY_DIALECT
def test_positions_of_the_first_version(dialect: Dialect) -> None:
    image, model = small_mvit(**FRAME).state_dict(), small_mvit()
    times = model.pos_embed_temporal.detach().clone()
    image["pos_embed_spatial"] += 1
    image["pos_embed_class"] += 1
    load_checkpoint(model, dialect(image))
    assert torch.equal(model.pos_embed_spatial, image["pos_embed_spatial"])
    assert torch.equal(model.pos_embed_class, image["pos_embed_class"])
    if dialect is dialects.pytorchvideo_image:
        times = image["pos_embed_temporal"].expand_as(times)
    assert torch.equal(model.pos_embed_temporal, times)


@SECOND_VERSION_DIALECTS
def test_positions_of_another_size(dialect: Dialect) -> None:
    places, model = small_mvit(**FRAME).state_dict(), small_mvit(image_size=48)
    load_checkpoint(model, dialect(places))
    square = places["pos_embed_spatial"].reshape(1, 8, 8, 16).permute(0, 3, 1, 2)
    resized = F.interpolate(square, size=(12, 12), mode="bicubic").flatten(2).transpose(1, 2)
    torch.testing.assert_close(model.pos_embed_spatial.data, resized)
    tables, model_v2 = image_v2(), small_mvit_v2(image_size=48)
    load_checkpoint(model_v2, dialect(tables))
    resized = F.interpolate(tables["blocks.0.attn.rel_pos_h"].t()[None], size=23, mode="linear")[0].t()
    torch.testing.assert_close(model_v2.blocks[0].attn.rel_pos_h.data, resized)


@SECOND_VERSION_DIALECTS
def test_head_of_other_classes_leaves_the_models_own(dialect: Dialect) -> None:
    model = small_mvit_v2(num_classes=5)
    head = model.head.weight.clone()
    load_checkpoint(model, dialect(image_v2()))
    assert torch.equal(model.head.weight, head)


def test_kernels_of_another_size_are_refused() -> None:
    weights = dialects.authors_image(image_v2(pool_kernel=None))
    with pytest.raises(ValueError, match=r"blocks.0.attn.pool_k.weight \(model .* 3, 3, 3\), checkpoint .* 3, 5, 5\)"):
        load_checkpoint(small_mvit_v2(), weights)


@EVERY_DIALECT
def test_an_image_mvit_is_no_image_vit(dialect: Dialect) -> None:
    weights = dialect(small_mvit(**FRAME).state_dict())
    with pytest.raises(ValueError, match=r"\(names of 2D image MViT\) does not fit TimeSformer"):
        load_checkpoint(small_timesformer(), weights)
