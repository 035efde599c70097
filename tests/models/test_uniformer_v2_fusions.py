"""The fusions of UniFormerV2's global blocks against a plain reading of the paper's figure, block by block."""

import pytest
import torch
import torch.nn.functional as F
from target import DEVICE
from torch import Tensor
from uniformer_v2_oracles import SIZE, small_uniformer_v2

from vtfast.models import UniFormerV2
from vtfast.models.uniformer_v2 import FUSIONS

CLIP = torch.randn(2, 3, *SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).to(DEVICE)


def read(
    query: Tensor,  # [Q, B, C]
    context: Tensor,  # [N, B, C]
    weights: dict[str, Tensor],
    num_heads: int,
) -> Tensor:  # [Q, B, C]
    """A global block on its normalised way from queries to queries, by PyTorch's own attention."""

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"])

    keys = norm(context, "ln_3")
    attended, _ = F.multi_head_attention_forward(
        norm(query, "ln_1"),
        keys,
        keys,
        embed_dim_to_check=query.shape[-1],
        num_heads=num_heads,
        in_proj_weight=weights["attn.qkv.weight"],
        in_proj_bias=weights["attn.qkv.bias"],
        bias_k=None,
        bias_v=None,
        add_zero_attn=False,
        dropout_p=0.0,
        out_proj_weight=weights["attn.proj.weight"],
        out_proj_bias=weights["attn.proj.bias"],
        need_weights=False,
    )
    query = query + attended
    hidden = F.linear(norm(query, "ln_2"), weights["mlp.fc1.weight"], weights["mlp.fc1.bias"])
    return query + F.linear(hidden * torch.sigmoid(1.702 * hidden), weights["mlp.fc2.weight"], weights["mlp.fc2.bias"])


def gathered(model: UniFormerV2, clip: Tensor) -> Tensor:  # [B, C]
    """The video token, from the tokens that CLIP's blocks give."""
    x, grid = model._embed(clip)
    layers: list[Tensor] = []  # each [T * (1 + H*W), B, C]
    for index, block in enumerate(model.blocks):
        x = block(x, grid)
        if index >= model.first_global:
            weights = dict(model.global_blocks[index - model.first_global].named_parameters())
            volume = x[:, :, 1:].unflatten(2, grid[1:]).permute(0, 4, 1, 2, 3)
            moved = F.conv3d(volume, weights["dpe.weight"], weights["dpe.bias"], padding=1, groups=volume.shape[1])
            patches = (volume + moved).flatten(3).permute(0, 2, 3, 1)
            layers.append(torch.cat([x[:, :, :1], patches], dim=2).flatten(1, 2).transpose(0, 1))
    own = [q.expand(1, len(clip), -1) for q in model.temporal_cls_token]
    heads = model.blocks[0].attn.num_heads
    results: list[Tensor] = []
    for index, context in enumerate(layers):
        weights = dict(model.global_blocks[index].named_parameters())
        if model.fusion == "sequential":
            query = results[-1] if results else own[0]
        elif model.fusion == "hierarchical_q":
            query = torch.cat([*results[-1:], own[index]])
        else:
            query = own[index]
        if model.fusion == "hierarchical_kv":
            context = torch.cat([*results[-1:], context])
        results.append(read(query, context, weights, heads))
    if model.fusion == "parallel":
        return F.linear(torch.cat(results, dim=-1)[0], model.fuse_tokens.weight, model.fuse_tokens.bias)
    return results[-1].mean(dim=0)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_video_token_and_gradients(fusion: str) -> None:
    model = small_uniformer_v2(fusion=fusion, depth=4, global_depth=3).double()
    token, expected = model._forward_blocks(CLIP)[1], gathered(model, CLIP)
    torch.testing.assert_close(token, expected)
    weights = torch.randn_like(token)
    leaves = dict(model.named_parameters())
    own, wanted = (
        dict(
            zip(leaves, torch.autograd.grad((t * weights).sum(), list(leaves.values()), allow_unused=True), strict=True)
        )
        for t in (token, expected)
    )
    assert {name for name, gradient in own.items() if gradient is None} == {
        "balance", "norm.weight", "norm.bias", "head.weight", "head.bias",
    }  # fmt: skip
    torch.testing.assert_close(own, wanted)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_queries(fusion: str) -> None:
    """One for all, or one for each block; every one of them has an effect."""
    model = small_uniformer_v2(fusion=fusion)
    assert model.temporal_cls_token.shape == (1 if fusion == "sequential" else 2, 1, 24)
    model(CLIP.float()).sum().backward()
    assert model.temporal_cls_token.grad.abs().amax((1, 2)).all()
    assert (model.fuse_tokens is not None) is (fusion == "parallel")
