"""What models return about their attention, against transformers and timesformer-pytorch."""

from typing import Any

import pytest
import torch
from lucidrains import small_lucidrains, small_upstream
from oracles import huggingface_timesformer, small_swin, small_timesformer
from torch import Tensor, nn

import vtfast
from vtfast.checkpoints import load_checkpoint
from vtfast.models import record_attention

SIZE = (3, 32, 48)
GRID = (3, 2, 3)
STEPS = {
    "divided": ("time", "space"),
    "joint": ("joint",),
    "space": ("space",),
    "sparse": ("local", "global"),
    "axial": ("time", "width", "height"),
}


def huggingface_attention(attention_type: str, model: nn.Module, clip: Tensor) -> tuple[Tensor, ...]:
    """For each block the weights of its last attention, which is all that transformers returns."""
    oracle = huggingface_timesformer(attention_type, SIZE).double()
    load_checkpoint(model, oracle.state_dict())
    oracle.set_attn_implementation("eager")
    attentions: tuple[Tensor, ...] = oracle(clip.transpose(1, 2), output_attentions=True).attentions
    return attentions


def test_space_attention_is_that_of_transformers() -> None:
    model = small_timesformer(num_frames=3, image_size=SIZE[1:]).double()
    clip = torch.randn(2, 3, *SIZE, dtype=torch.float64)
    expected = huggingface_attention("divided", model, clip)
    _, steps = model(clip, return_attention=True)
    space = [step.weights for step in steps if step.scheme == "space"]
    assert len(space) == len(expected)
    for weights, maps in zip(space, expected, strict=True):
        maps = maps.unflatten(0, (2, 3))  # [B, T, heads, 1 + H*W, 1 + H*W], cls first
        torch.testing.assert_close(weights.groups, torch.cat([maps[..., 1:, 1:], maps[..., 1:, :1]], dim=-1))
        cls = torch.cat([maps[..., 0, :1].mean(dim=1), maps[..., 0, 1:].transpose(1, 2).flatten(2) / 3], dim=-1)
        torch.testing.assert_close(weights.prefix, cls[:, :, None])


def test_joint_attention_is_that_of_transformers() -> None:
    model = small_timesformer(num_frames=3, image_size=SIZE[1:], attention_type="joint").double()
    clip = torch.randn(2, 3, *SIZE, dtype=torch.float64)
    expected = huggingface_attention("joint", model, clip)
    _, steps = model(clip, return_attention=True)
    # There time is the fastest: the numbers of its tokens in the order of ours.
    order = torch.cat([torch.zeros(1), 1 + torch.arange(18).view(2, 3, 3).permute(2, 0, 1).flatten()]).long()
    assert len(steps) == len(expected)
    for step, maps in zip(steps, expected, strict=True):
        torch.testing.assert_close(step.weights.rows(torch.arange(19)), maps[:, :, order][..., order])


@pytest.mark.parametrize("masked", [False, True], ids=["whole", "masked"])
def test_attention_is_that_of_timesformer_pytorch(masked: bool) -> None:
    """Its softmax sees, in each attention, the cls token over the clip and then the groups, heads in the batch."""
    model, oracle = small_lucidrains().double(), small_upstream().double()
    load_checkpoint(model, oracle.state_dict())
    mask = torch.tensor([[True, False, True], [True, True, True]]) if masked else None
    seen: list[Tensor] = []
    clip = torch.randn(2, 3, 3, 16, 24, dtype=torch.float64)
    softmax = Tensor.softmax

    def spy(scores: Tensor, *args: Any, **options: Any) -> Tensor:
        seen.append(softmax(scores, *args, **options))
        return seen[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tensor, "softmax", spy)
        oracle(clip.transpose(1, 2), mask=mask)
    _, steps = model(clip, mask, return_attention=True)
    assert [step.scheme for step in steps] == ["time", "space"] * 2
    assert len(seen) == 2 * len(steps)
    for step, cls, groups in zip(steps, seen[::2], seen[1::2], strict=True):
        torch.testing.assert_close(step.weights.prefix, cls.unflatten(0, (2, 3)))
        groups = groups.unflatten(0, (2, 3, -1)).transpose(1, 2)  # [B, G, heads, N, 1 + N]
        torch.testing.assert_close(step.weights.groups, groups.roll(-1, dims=-1))


@pytest.mark.parametrize("attention_type", STEPS)
def test_every_step_of_every_block_is_told_and_the_logits_stay(attention_type: str) -> None:
    model = small_timesformer(attention_type=attention_type)
    clip = torch.randn(2, 3, 3, 48, 48)
    logits, steps = model(clip, return_attention=True)
    assert torch.equal(logits, model(clip))
    wanted = [(block, scheme) for block in range(2) for scheme in STEPS[attention_type]]
    assert [(step.block, step.scheme) for step in steps] == wanted
    for step in steps:
        assert step.weights.grid == ((1, 3, 3) if attention_type == "space" else (3, 3, 3))
        sums = step.weights.groups.sum(dim=-1)[:, :, :, :1]  # of slots that are never padding
        torch.testing.assert_close(sums, torch.ones_like(sums))


@pytest.mark.requires_native
def test_compiled_kernels_and_reference_tell_the_same() -> None:
    model = small_timesformer().double()
    clip = torch.randn(1, 3, 3, 48, 48, dtype=torch.float64)
    told = []
    for backend in ("native", "reference"):
        with vtfast.use_backend(backend):
            logits, steps = model(clip, return_attention=True)
            assert torch.equal(logits, model(clip))
            told.append([logits, *(step.weights.groups for step in steps)])
    torch.testing.assert_close(*told)


def test_gradients_go_through_the_weights_with_checkpointing_as_without() -> None:
    model = small_timesformer().train()
    clip = torch.randn(1, 3, 3, 48, 48)
    grads = []
    for checkpointing in (False, True):
        model.set_grad_checkpointing(checkpointing)
        torch.manual_seed(0)
        logits, steps = model(clip, return_attention=True)
        assert model.grad_checkpointing is checkpointing
        loss = logits.sum() + sum(step.weights.groups.square().sum() for step in steps)
        grads.append(torch.autograd.grad(loss, [model.blocks[0].steps["over_time"].attn.qkv.weight])[0])
    assert grads[0].any()
    assert torch.equal(*grads)


def test_only_the_mean_over_the_heads() -> None:
    model = small_timesformer()
    clip = torch.randn(1, 3, 3, 48, 48)
    _, steps = model(clip, return_attention=True)
    with record_attention(model, mean_heads=True) as means:
        model.forward_features(clip)
    for step, mean in zip(steps, means, strict=True):
        torch.testing.assert_close(mean.weights.groups, step.weights.groups.mean(dim=2, keepdim=True))


def test_nothing_is_recorded_after_the_block_even_if_it_failed() -> None:
    model = small_timesformer()
    with pytest.raises(ValueError, match="clip"), record_attention(model) as steps:
        model(torch.randn(1, 3, 3, 47, 48))
    model(torch.randn(1, 3, 3, 48, 48))
    assert steps == []


def test_models_without_divided_attention_are_refused() -> None:
    with pytest.raises(ValueError, match="model must have blocks of divided attention"), record_attention(small_swin()):
        pass
