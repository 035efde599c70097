"""What only the light UniFormer has: cls, two heads, and scores of the tokens that pass from block to block."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn
from uniformer_oracles import SMALL, small_uniformer_light

from vtfast.layers import PruningRelationBlock
from vtfast.layers.scoring_attention import ScoringAttention
from vtfast.models import FeatureExtractor, UniFormerLight

CLIP = torch.randn(2, 3, 4, 64, 64, generator=torch.Generator().manual_seed(0))


def test_a_clip_does_not_depend_on_others() -> None:
    """On none of its batch, of another size before it, inside the same call or at the same time."""
    model = small_uniformer_light()
    other = torch.randn(1, 3, 2, 96, 64)
    alone, of_other = torch.cat([model(clip[None]) for clip in CLIP]), model(other)
    torch.testing.assert_close(model(CLIP), alone)
    inner = []

    def call_again(*_: object) -> None:
        handle.remove()
        inner.append(model(other))

    handle = model.blocks3[1].register_forward_hook(call_again)
    torch.testing.assert_close(model(CLIP), alone)
    torch.testing.assert_close(inner, [of_other])
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(model, [CLIP, other] * 4))
    torch.testing.assert_close(results, [alone, of_other] * 4)


def test_two_heads_in_training() -> None:
    model = small_uniformer_light().train()
    logits, cls_logits = model(CLIP)
    assert logits.shape == cls_logits.shape == (2, 7)
    (logits + cls_logits).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    model.eval().reset_classifier(5)
    assert model(CLIP).shape == (2, 5)
    assert [out.shape for out in model.train()(CLIP)] == [(2, 5), (2, 5)]
    model.reset_classifier(0)
    assert [out.shape for out in model(CLIP)] == [(2, 24), (2, 24)]


def test_norms_and_initial_weights() -> None:
    model = UniFormerLight(depths=(1, 1, 1, 1))
    for name, module in model.named_modules():
        if isinstance(module, nn.LayerNorm):
            assert module.eps == (1e-6 if name.startswith("blocks") else 1e-5), name
    assert (model.cls_token == 0).all()
    for layer in (model.cls_upsample, model.head, model.head_cls, model.blocks4[0].mlp.fc1):
        assert 0.018 < layer.weight.std() < 0.022
        assert (layer.bias == 0).all()


def test_the_first_block_with_attention_takes_all_tokens() -> None:
    model = small_uniformer_light(keep=0.25)
    assert [block.keep for block in (*model.blocks3, *model.blocks4)] == [1.0, 0.25, 0.25]


@pytest.mark.parametrize("last", [1, 2, 3])
def test_features_keep_only_what_the_maps_need(last: int) -> None:
    model, extractor = small_uniformer_light(), FeatureExtractor(small_uniformer_light(), out_indices=(last,))
    maps = extractor(CLIP)
    torch.testing.assert_close(maps, model.forward_intermediates(CLIP, (last,)))
    maps[0].sum().backward()
    assert all(parameter.grad is not None for parameter in extractor.parameters())
    removed = {name for name in model.state_dict() if f"model.{name}" not in extractor.state_dict()}
    assert removed == {name for name in model.state_dict() if name.startswith(("head.", *extractor.model.pruned))}


def test_activation_checkpointing_keeps_the_gradients() -> None:
    gradients = []
    for recompute in (False, True):
        model = small_uniformer_light(drop_path_rate=0.5, proj_drop_rate=0.1).train()
        model.set_grad_checkpointing(recompute)
        torch.manual_seed(0)
        sum(out.square().sum() for out in model(CLIP)).backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    torch.testing.assert_close(*gradients, rtol=0, atol=0)


def test_autocast() -> None:
    model = small_uniformer_light()
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(CLIP)
    exact = model(CLIP)
    assert (logits - exact).abs().max() < 0.05 * exact.abs().max()


def test_scores_are_what_cls_attends_to() -> None:
    layer = ScoringAttention(16, 2).double()
    x = torch.randn(2, 6, 16, dtype=torch.float64)
    out, scores = layer(x)
    q, k, v = layer.qkv(x).unflatten(-1, (3, 2, 8)).permute(2, 0, 3, 1, 4)
    weights = (q @ k.mT * 8**-0.5).softmax(-1)
    torch.testing.assert_close(scores, weights[:, :, 0, 1:].mean(1))
    torch.testing.assert_close(out, layer.proj((weights @ v).transpose(1, 2).flatten(2)))


@pytest.mark.parametrize(
    ("option", "message"),
    [({"keep": 0.0}, "keep must be above 0 and at most 1, got 0.0"), ({"trade_off": 1.5}, "trade_off must be between")],
)
def test_rejects_option(option: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PruningRelationBlock(16, 2, 32, **option)
    with pytest.raises(ValueError, match=message):
        UniFormerLight(**(SMALL | option))
