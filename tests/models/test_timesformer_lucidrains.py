"""TimeSformer of timesformer-pytorch against that package, and its public methods."""

import copy
from typing import Any

import pytest
import torch
from lucidrains import small_lucidrains, small_upstream
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

from vtfast.checkpoints import load_checkpoint
from vtfast.models import FeatureExtractor, TimeSformerLucidrains, create_model

VARIANTS: dict[str, dict[str, Any]] = {
    "rotary": {},
    "shift": {"shift_tokens": True},
    "positions": {"rotary_emb": False},
    "positions-shift": {"rotary_emb": False, "shift_tokens": True},
    "narrow-heads": {"head_dim": 6, "num_heads": 2, "embed_dim": 18, "shift_tokens": True},
}


def pair(**config: Any) -> tuple[TimeSformerLucidrains, nn.Module]:
    """A model of ours and timesformer-pytorch's, with the same weights, in evaluation mode."""
    model, oracle = small_lucidrains(**config), small_upstream(**config)
    load_checkpoint(model, oracle.state_dict())
    return model, oracle


def upstream(oracle: nn.Module, clip: Tensor, mask: Tensor | None = None) -> Tensor:
    """Its logits; the places in a frame have the default dtype there."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(clip.dtype)
    try:
        logits: Tensor = oracle(clip.transpose(1, 2), mask=mask)
    finally:
        torch.set_default_dtype(default)
    return logits


@pytest.mark.parametrize("masked", [False, True], ids=["whole", "masked"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_and_gradients_agree_with_upstream(variant: str, masked: bool) -> None:
    model, oracle = (m.double() for m in pair(**VARIANTS[variant]))
    clip = torch.randn(2, 3, 5, 32, 32, dtype=torch.float64, requires_grad=True)
    # One clip with a single frame, one with a gap.
    mask = torch.tensor([[False, False, True, False, False], [True, False, True, True, False]]) if masked else None
    logits, expected = model(clip, mask), upstream(oracle, clip, mask)
    torch.testing.assert_close(logits, expected)
    weights = torch.randn_like(logits)
    own = torch.autograd.grad((logits * weights).sum(), [clip, *model.parameters()])
    clip_grad, *grads = torch.autograd.grad((expected * weights).sum(), [clip, *oracle.parameters()])
    torch.testing.assert_close(own[0], clip_grad)
    # The converter also carries gradients to our names and shapes.
    converted = copy.deepcopy(model)
    names = [name for name, _ in oracle.named_parameters()]
    load_checkpoint(converted, dict(zip(names, grads, strict=True)))
    own_names = [name for name, _ in model.named_parameters()]
    torch.testing.assert_close(dict(zip(own_names, own[1:], strict=True)), dict(converted.named_parameters()))


@pytest.mark.parametrize("size", [(1, 32, 32), (9, 8, 56), (2, 40, 24)], ids=str)
@pytest.mark.parametrize("shift", [False, True], ids=["plain", "shift"])
def test_any_clip_with_rotary_positions(size: tuple[int, int, int], shift: bool) -> None:
    """timesformer-pytorch shifts tokens right only in clips of its `num_frames`."""
    model = small_lucidrains(shift_tokens=shift).double()
    oracle = small_upstream(shift_tokens=shift, num_frames=size[0]).double()
    load_checkpoint(model, oracle.state_dict())
    clip = torch.randn(2, 3, *size, dtype=torch.float64)
    torch.testing.assert_close(model(clip), upstream(oracle, clip))


def test_shorter_clips_take_the_first_positions() -> None:
    model, oracle = (m.double() for m in pair(rotary_emb=False))
    clip = torch.randn(1, 3, 3, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(model(clip), upstream(oracle, clip))


@pytest.mark.parametrize("autocast", [False, True], ids=["float32", "autocast"])
def test_rounding_is_no_worse_than_upstreams(autocast: bool) -> None:
    model, oracle = pair()
    clip = torch.randn(2, 3, 5, 32, 48)
    with torch.inference_mode():
        exact = upstream(copy.deepcopy(oracle).double(), clip.double())
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            logits, expected = model(clip), upstream(oracle, clip)
    assert logits.dtype == expected.dtype
    error, oracle_error = ((out - exact).abs().max() for out in (logits, expected))
    assert error <= 2 * oracle_error + torch.finfo(logits.dtype).eps * exact.abs().max()


def test_bfloat16_weights_keep_positions_exact() -> None:
    """timesformer-pytorch does not run in bfloat16; its tables would be rounded with the weights."""
    model, clip = small_lucidrains(), torch.randn(2, 3, 5, 32, 48)
    expected = model(clip)
    torch.testing.assert_close(model.bfloat16()(clip.bfloat16()).float(), expected, rtol=0.03, atol=0.03)


def test_masked_frames_at_the_end_are_as_if_left_out() -> None:
    model = small_lucidrains().double()
    clip = torch.randn(2, 3, 7, 16, 16, dtype=torch.float64)
    mask = torch.arange(7).expand(2, 7) < 5
    torch.testing.assert_close(model(clip, mask), model(clip[:, :, :5]))
    changed = clip.clone()
    changed[:, :, 5:] = 100.0
    assert torch.equal(model(changed, mask), model(clip, mask))
    assert not torch.allclose(model(clip), model(clip, mask))


def test_published_number_of_parameters() -> None:
    with torch.device("meta"):
        model = create_model("timesformer_lucidrains", num_classes=10)
    assert sum(p.numel() for p in model.parameters()) == 63_419_402


def test_registry() -> None:
    with torch.device("meta"):
        model = create_model("timesformer_lucidrains")
        assert model(torch.empty(2, 3, 8, 224, 224)).shape == (2, 400)
    assert model.preprocessing.frames == 8
    assert model.preprocessing.stride == 32
    assert model.preprocessing.crop == 224
    assert model.preprocessing.mean == (0.45, 0.45, 0.45)
    assert model.preprocessing.std == (0.225, 0.225, 0.225)


def test_head_takes_the_normalised_cls_token() -> None:
    model = small_lucidrains()
    clip = torch.randn(2, 3, 4, 16, 24)
    features = model.forward_features(clip)
    assert features.shape == (2, 1 + 4 * 2 * 3, 32)
    pooled = model.forward_head(features, pre_logits=True)
    assert torch.equal(pooled, features[:, 0])
    assert torch.equal(model(clip), model.get_classifier()(pooled))


def test_reset_classifier() -> None:
    model = small_lucidrains().double()
    clip = torch.randn(2, 3, 2, 16, 16, dtype=torch.float64)
    model.reset_classifier(5)
    assert model(clip).shape == (2, 5)
    model.reset_classifier(5, global_pool="")
    assert model(clip).shape == (2, 1 + 2 * 2 * 2, 5)
    model.reset_classifier(0, global_pool="token")
    assert torch.equal(model(clip), model.forward_features(clip)[:, 0])
    with pytest.raises(ValueError, match="num_classes must be at least 0, got -1"):
        model.reset_classifier(-1)
    with pytest.raises(ValueError, match="global_pool must be 'token' or '', got 'avg'"):
        model.reset_classifier(5, "avg")


def test_maps_are_the_outputs_of_the_blocks() -> None:
    model, clip = small_lucidrains(), torch.randn(2, 3, 4, 16, 24)
    first, last = FeatureExtractor(small_lucidrains())(clip)
    assert first.shape == last.shape == (2, 32, 4, 2, 3)
    torch.testing.assert_close(
        model.norm(last.permute(0, 2, 3, 4, 1)).flatten(1, 3), model.forward_features(clip)[:, 1:]
    )
    extractor = FeatureExtractor(small_lucidrains(), out_indices=(0,))
    torch.testing.assert_close(extractor(clip), [first])
    assert [(info.channels, info.reduction) for info in extractor.feature_info] == [(32, (1, 8, 8))]
    assert not any(name.startswith(("model.blocks.1", "model.norm", "model.head")) for name in extractor.state_dict())


def test_checkpointing_recomputes_the_same() -> None:
    model, clip = small_lucidrains(shift_tokens=True), torch.randn(1, 3, 3, 16, 16)
    mask = torch.tensor([[True, False, True]])
    parameters = list(model.parameters())
    plain = torch.autograd.grad(model(clip, mask).sum(), parameters)
    calls = []
    for block in model.blocks:
        block.register_forward_pre_hook(lambda *_: calls.append(1))
    model.set_grad_checkpointing()
    torch.testing.assert_close(torch.autograd.grad(model(clip, mask).sum(), parameters), plain)
    assert len(calls) == 4, "both blocks must run again in the backward"


def test_compiles_to_one_graph_for_all_sizes() -> None:
    torch.compiler.reset()
    model, counter = small_lucidrains(depth=1, shift_tokens=True), CompileCounterWithBackend("eager")
    compiled = torch.compile(model, backend=counter, fullgraph=True, dynamic=True)
    for batch, frames in ((2, 4), (3, 3), (4, 5)):
        clip, mask = torch.randn(batch, 3, frames, 8 * frames, 48), torch.ones(batch, frames, dtype=torch.bool)
        mask[0, 0] = False
        torch.testing.assert_close(compiled(clip, mask), model(clip, mask))
    assert counter.frame_count == 1


def test_no_weight_decay() -> None:
    assert small_lucidrains().no_weight_decay() == {"cls_token"}
    model = small_lucidrains(rotary_emb=False)
    assert model.no_weight_decay() == {"cls_token", "pos_embed"} < set(dict(model.named_parameters()))


@pytest.mark.parametrize("option", ["attn_dropout", "ff_dropout"])
def test_dropout_acts_in_training_only(option: str) -> None:
    model, clip = small_lucidrains(**{option: 0.5}), torch.randn(1, 3, 2, 16, 16)
    assert torch.equal(model(clip), model(clip))
    model.train()
    assert not torch.equal(model(clip), model(clip))


def test_empty_batch() -> None:
    assert small_lucidrains()(torch.empty(0, 3, 2, 16, 16)).shape == (0, 7)


@pytest.mark.parametrize(
    ("clip", "config", "error", "message"),
    [
        (torch.zeros(1, 3, 2, 32, 36), {}, ValueError, r"patch_size = 8 divides, got \(H, W\) = \(32, 36\)"),
        (torch.zeros(1, 3, 0, 32, 32), {}, ValueError, "clip must have at least one frame"),
        (torch.zeros(1, 4, 3, 32, 32), {}, ValueError, r"clip must be \(B, C, T, H, W\) with C = 3"),
        (torch.zeros(3, 4, 32, 32), {}, ValueError, r"clip must be \(B, C, T, H, W\)"),
        (torch.zeros(1, 3, 2, 32, 32, dtype=torch.uint8), {}, TypeError, "clip must be floating point"),
        (
            torch.zeros(1, 3, 6, 32, 32),
            {"rotary_emb": False},
            ValueError,
            r"at most 5 frames of 32 x 32 without rotary_emb, got \(T, H, W\) = \(6, 32, 32\)",
        ),
        (torch.zeros(1, 3, 5, 16, 64), {"rotary_emb": False}, ValueError, r"got \(T, H, W\) = \(5, 16, 64\)"),
    ],
    ids=["patch", "no-frames", "channels", "rank", "integers", "frames", "shape"],
)
def test_rejects_clip(clip: Tensor, config: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        small_lucidrains(**config)(clip)


@pytest.mark.parametrize(
    ("mask", "error", "message"),
    [
        (torch.ones(1, 2), TypeError, "mask must be a bool tensor, got torch.float32"),
        ([True, True], TypeError, "mask must be a bool tensor, got list"),
        (torch.ones(1, 3, dtype=torch.bool), ValueError, r"mask must have shape \(B, T\) = \(1, 2\), got \(1, 3\)"),
    ],
    ids=["float", "list", "frames"],
)
def test_rejects_mask(mask: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        small_lucidrains()(torch.zeros(1, 3, 2, 16, 16), mask)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"image_size": 30}, "patch_size must divide image_size = 30, got 8"),
        ({"head_dim": 7}, "head_dim must be even and at least 4 with rotary_emb, got 7"),
        ({"depth": 0}, "num_frames and depth must be at least 1, got 5 and 0"),
        ({"num_heads": 0}, "num_heads"),
        ({"global_pool": "avg"}, "global_pool must be 'token' or '', got 'avg'"),
    ],
    ids=["image", "head-dim", "depth", "heads", "pool"],
)
def test_rejects_option(option: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_lucidrains(**option)
