import pytest
import torch
from oracles import small_swin

from vtfast.models import FeatureExtractor, create_model
from vtfast.models.video_swin import VideoSwin


def test_maps_are_the_outputs_of_the_stages() -> None:
    model, extractor = small_swin(), FeatureExtractor(small_swin())
    clip = torch.randn(2, 3, 6, 40, 52)
    maps = extractor(clip)
    assert [tuple(m.shape) for m in maps] == [(2, 16, 3, 10, 13), (2, 32, 3, 5, 7), (2, 64, 3, 3, 4), (2, 128, 3, 2, 2)]
    assert [(info.channels, info.reduction) for info in extractor.feature_info] == [
        (16, (2, 4, 4)), (32, (2, 8, 8)), (64, (2, 16, 16)), (128, (2, 32, 32)),
    ]  # fmt: skip
    x = model.patch_embed(clip)
    for stage, feature_map in zip(model.stages, maps, strict=True):
        x = stage(x)
        torch.testing.assert_close(feature_map, x.permute(0, 4, 1, 2, 3))


def test_last_map_leads_to_the_logits() -> None:
    model, extractor = small_swin(), FeatureExtractor(small_swin(), out_indices=[-1])
    clip = torch.randn(2, 3, 6, 40, 52)
    (last,) = extractor(clip)
    torch.testing.assert_close(model.forward_head(model.norm(last.permute(0, 2, 3, 4, 1))), model(clip))


def test_runs_and_keeps_only_what_the_maps_need() -> None:
    extractor = FeatureExtractor(small_swin(), out_indices=(0, 2))
    maps = extractor(torch.randn(1, 3, 4, 32, 32))
    assert [m.shape[1] for m in maps] == [16, 64]
    assert not any(name.startswith(("model.stages.3", "model.norm", "model.head")) for name in extractor.state_dict())
    sum(m.sum() for m in maps).backward()
    assert all(parameter.grad is not None for parameter in extractor.parameters())


def test_create_model() -> None:
    extractor = create_model("swin3d_t", features_only=True, out_indices=(1,), depths=(1, 1, 1, 1))
    assert isinstance(extractor, FeatureExtractor)
    assert isinstance(extractor.model, VideoSwin)
    assert extractor.preprocessing.crop == 224
    assert [m.shape for m in extractor(torch.randn(1, 3, 2, 32, 32))] == [(1, 192, 1, 4, 4)]
    with pytest.raises(ValueError, match="out_indices needs features_only=True"):
        create_model("swin3d_t", out_indices=(1,))


@pytest.mark.parametrize("indices", [(4,), (-5,), (1, 0), (0, 0), ()], ids=str)
def test_rejects_indices(indices: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="out_indices must be ascending stages of 0 to 3, got"):
        FeatureExtractor(small_swin(), indices)
