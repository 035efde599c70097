"""MViT against torchvision and PyTorchVideo on the same weights, also at sizes that it was not made for."""

from collections.abc import Callable

import mvit_dialects as dialects
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from oracles import pytorchvideo_mvit, randomise, small_mvit, small_mvit_v2, torchvision_mvit, torchvision_video
from target import DEVICE
from torch import Tensor, nn
from torch.func import functional_call

from vtfast.models import MViT, create_model

StateDict = dict[str, Tensor]
Size = tuple[int, int, int]
Build = Callable[..., MViT]

BUILDS = [pytest.param(small_mvit, id="v1"), pytest.param(small_mvit_v2, id="v2")]


def made_for(build: Build, size: Size) -> MViT:
    return build(num_frames=size[0], image_size=size[1:])


def torchvision(weights: StateDict, model: MViT, oracle: nn.Module) -> StateDict:
    """For an oracle of other sizes. It resizes relative positions itself, but not the absolute ones."""
    weights = dict(weights)
    if model.pos_embed_spatial is not None:
        encoding = oracle.pos_encoding
        places = weights["pos_embed_spatial"].mT.unflatten(2, model.learned_grid[1:])
        places = F.interpolate(places, size=encoding.spatial_size, mode="bilinear")
        weights["pos_embed_spatial"] = places.flatten(2).mT
        frames = F.interpolate(weights["pos_embed_temporal"].mT, size=encoding.temporal_size, mode="linear")
        weights["pos_embed_temporal"] = frames.mT
    return dialects.torchvision(weights)


def assert_agree(model: MViT, clip: Tensor, expected: Callable[[StateDict], Tensor], **tolerance: float) -> None:
    """The same logits and gradients, by the clip and by every parameter."""
    clip.requires_grad_()
    parameters = dict(model.named_parameters())
    names, leaves = ["clip", *parameters], [clip, *parameters.values()]
    logits, theirs = model(clip), expected(parameters)
    torch.testing.assert_close(logits, theirs, **tolerance)
    weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(0), dtype=logits.dtype)
    own = torch.autograd.grad((logits * weights).sum(), leaves)
    wanted = torch.autograd.grad((theirs * weights).sum(), leaves)
    own, wanted = (dict(zip(names, gradients, strict=True)) for gradients in (own, wanted))
    torch.testing.assert_close(own, wanted, **tolerance)


@pytest.mark.every_device
@pytest.mark.parametrize("build", BUILDS)
def test_same_logits_as_torchvision(build: Build) -> None:
    model = build()
    oracle, weights = torchvision_mvit(model), dialects.torchvision(dict(model.named_parameters()))
    clip = torch.randn(2, 3, 4, 32, 32, device=DEVICE)
    with torch.inference_mode():
        logits, expected = model(clip), functional_call(oracle, weights, clip)
        exact = functional_call(
            oracle.double(), {name: value.double() for name, value in weights.items()}, clip.double()
        )
    assert (logits - exact).abs().max() <= 2 * (expected - exact).abs().max() + 1e-6 * exact.abs().max()


@pytest.mark.parametrize(
    ("learned", "size"),
    [
        ((4, 32, 32), (4, 32, 32)),
        ((4, 32, 48), (4, 32, 48)),
        ((4, 32, 32), (2, 64, 32)),
        ((4, 32, 32), (6, 24, 40)),
        ((6, 48, 16), (8, 16, 80)),
    ],
    ids=["own", "own-rectangle", "one-frame-of-tokens", "odd", "flat"],
)
@pytest.mark.parametrize(
    "build", [*BUILDS, pytest.param(lambda **size: small_mvit_v2(residual_pooling_cls=True, **size), id="v2-cls")]
)
def test_agrees_with_torchvision_made_for_the_size(build: Build, learned: Size, size: Size) -> None:
    model, oracle = made_for(build, learned).double(), torchvision_mvit(made_for(build, size)).double()
    clip = torch.randn(2, 3, *size, dtype=torch.float64)
    assert_agree(model, clip, lambda own: functional_call(oracle, torchvision(own, model, oracle), clip))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"pool_mode": "avg"},
        {"pool_mode": "max"},
        {"pool_first": True},
        {"pool_first": True, "pool_mode": "max"},
        {"cls_token": False},
        {"cls_token": False, "pool_mode": "avg", "pool_first": True},
        {"pool_kernel": None},
    ],
    ids=["conv", "avg", "max", "pool-first", "pool-first-max", "no-cls", "no-cls-pool-first-avg", "kernel-of-stride"],
)
def test_agrees_with_pytorchvideo(options: dict[str, object]) -> None:
    # Average pooling of PyTorch takes no grid smaller than its window.
    size = (6, 64, 64) if options.get("pool_mode") == "avg" else (4, 32, 32)
    model = small_mvit(num_frames=size[0], image_size=size[1:], **options).double()
    oracle = pytorchvideo_mvit(model).double()
    clip = torch.randn(2, 3, *size, dtype=torch.float64)
    assert_agree(model, clip, lambda own: functional_call(oracle, dialects.pytorchvideo(own), clip))


def test_image_model_agrees_with_pytorchvideo() -> None:
    options = {"patch_kernel": (1, 7, 7), "patch_stride": (1, 4, 4), "pool_kernel": (1, 3, 3)}
    model = small_mvit(num_frames=1, **options).double()
    oracle = pytorchvideo_mvit(model).double()
    image = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    assert_agree(model, image, lambda own: functional_call(oracle, dialects.pytorchvideo_image(own), image))


@pytest.mark.slow
@pytest.mark.parametrize("size", [(16, 160, 224), (32, 224, 224), (16, 192, 192)], ids=str)
@pytest.mark.parametrize("build", BUILDS)
def test_agrees_with_torchvision_on_whole_clips_of_other_sizes(build: Build, size: Size) -> None:
    """In a narrow model with coarser patches than published, for speed."""
    options = {"embed_dim": 8, "depths": (1, 1, 1, 1), "patch_stride": (2, 8, 8)}
    model = build(**options, num_frames=16, image_size=224)
    oracle = torchvision_mvit(build(**options, num_frames=size[0], image_size=size[1:]))
    clip = torch.randn(1, 3, *size)
    assert_agree(
        model, clip, lambda own: functional_call(oracle, torchvision(own, model, oracle), clip), rtol=1e-3, atol=1e-5
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mvit_v1_b", "mvit_v2_s"])
def test_published_model_agrees_with_torchvision(name: str) -> None:
    oracle = randomise(getattr(torchvision_video(), name)(), seed=0).eval()
    model = create_model(name, checkpoint=oracle.state_dict()).eval()
    clip = torch.randn(1, 3, 16, 224, 224)
    with torch.inference_mode():
        torch.testing.assert_close(model(clip), oracle(clip), rtol=1e-5, atol=1e-5)


def slowfast_bias(
    scores: Tensor,  # [B, num_heads, 1 + Tq*Hq*Wq, 1 + Tk*Hk*Wk]
    q: Tensor,  # [B, num_heads, 1 + Tq*Hq*Wq, D]
    q_grid: Size,
    k_grid: Size,
    rel_pos_h: Tensor,
    rel_pos_w: Tensor,
    rel_pos_t: Tensor,
) -> Tensor:
    """Torchvision's step with the rows of the tables that SlowFast takes, in float32 and in its order."""
    bias: Tensor | float = 0.0
    for axis, table in enumerate((rel_pos_t, rel_pos_h, rel_pos_w)):
        q_size, k_size = q_grid[axis], k_grid[axis]
        q_step, k_step = np.float32(max(k_size / q_size, 1)), np.float32(max(q_size / k_size, 1))
        queries, keys = np.arange(q_size, dtype=np.float32)[:, None], np.arange(k_size, dtype=np.float32)
        rows = (queries * q_step - keys * k_step + np.float32((k_size - 1) * max(q_size / k_size, 1))).astype(np.int64)
        rows = F.interpolate(table.mT[None], size=2 * max(q_size, k_size) - 1, mode="linear")[0].mT[rows]
        shape = [1, 1, 1]
        shape[axis] = q_size
        of_queries = rows.view(*shape, k_size, -1).expand(*q_grid, -1, -1).flatten(0, 2)  # [Tq*Hq*Wq, k_size, D]
        shape = [1, 1, 1]
        shape[axis] = k_size
        terms = torch.einsum("bnqd, qkd -> bnqk", q[:, :, 1:], of_queries).unflatten(-1, shape)
        bias = bias + terms.expand(*terms.shape[:3], *k_grid).flatten(3)
    scores[:, :, 1:, 1:] += bias
    return scores


def test_relative_positions_of_the_large_model_are_rounded_as_in_slowfast(monkeypatch: pytest.MonkeyPatch) -> None:
    """With 78 or 39 queries on 10 keys in a row torchvision rounds another way."""
    options = {"embed_dim": 8, "depths": (1, 2, 2, 2), "kv_stride": (1, 8, 8), "image_size": 312, "num_frames": 2}
    model = small_mvit_v2(**options).double()
    assert [len(block.attn.rel_pos_h) for block in model.blocks] == [155, 77, 77, 37, 37, 37, 17]
    oracle, weights = torchvision_mvit(model).double(), dialects.torchvision(model.state_dict())
    oracle.load_state_dict(weights)
    clip = torch.randn(1, 3, 2, 312, 312, dtype=torch.float64)
    with torch.inference_mode():
        logits, differently_rounded = model(clip), oracle(clip)
        monkeypatch.setattr(torchvision_video().mvit, "_add_rel_pos", slowfast_bias)
        torch.testing.assert_close(logits, oracle(clip))
    assert (logits - differently_rounded).abs().max() > 1e-4
