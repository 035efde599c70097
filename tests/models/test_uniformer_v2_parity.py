"""UniFormerV2 against mmaction2's on the same weights, logits, gradients and what stochastic depth drops."""

import pytest
import torch
import torch.nn.functional as F
import uniformer_dialects as dialects
from target import DEVICE
from torch import Tensor, nn
from torch.func import functional_call
from uniformer_v2_oracles import SIZE, mmaction2_uniformer_v2, small_uniformer_v2

from vtfast.models import UniFormerV2

DESIGNS = ["scene", "temporal"]


def oracle_features(
    oracle: nn.Module,
    model: UniFormerV2,
    clip: Tensor,  # [B, C, T, H, W]
) -> Tensor:  # [B, C']
    """Of mmaction2, as a function of the parameters of `model`."""
    weights = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    weights = {name: value for name, value in weights.items() if not name.startswith("head.")}
    features: Tensor = functional_call(oracle, dialects.uniformer_v2_mmaction2_bare(weights), clip, strict=True)
    return features


def clip_of(batch: int, *size: int) -> Tensor:
    clip = torch.randn(batch, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    return clip.to(DEVICE).requires_grad_()


@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
@pytest.mark.parametrize("design", DESIGNS)
def test_same_features_and_gradients(design: str, training: bool) -> None:
    """In training with batch statistics, which go into the same running statistics."""
    model, twin = (small_uniformer_v2(design=design, mlp_drop_rate=0.0).double().train(training) for _ in range(2))
    oracle, clip = mmaction2_uniformer_v2(model).double().train(training), clip_of(2, *SIZE)
    features, theirs = model.forward_features(clip), oracle_features(oracle, twin, clip)
    torch.testing.assert_close(features, theirs)
    torch.testing.assert_close(dict(model.named_buffers()), dict(twin.named_buffers()))
    weights = torch.randn_like(features)

    def gradients(out: Tensor, model: UniFormerV2) -> dict[str, Tensor]:
        leaves = {"clip": clip} | {name: p for name, p in model.named_parameters() if not name.startswith("head.")}
        return dict(zip(leaves, torch.autograd.grad((out * weights).sum(), list(leaves.values())), strict=True))

    torch.testing.assert_close(gradients(features, model), gradients(theirs, twin))


@pytest.mark.every_device
@pytest.mark.parametrize("design", DESIGNS)
def test_same_features_in_float32(design: str) -> None:
    model = small_uniformer_v2(design=design)
    clip = clip_of(2, *SIZE).detach().float()
    torch.testing.assert_close(
        model.forward_features(clip), oracle_features(mmaction2_uniformer_v2(model), model, clip), rtol=1e-4, atol=1e-4
    )


def test_same_features_at_other_lengths_and_sizes() -> None:
    """Against an oracle made for the size, whose positions have been resized."""
    model, clip = small_uniformer_v2().double(), clip_of(1, 6, 80, 80)
    larger = small_uniformer_v2(image_size=80).double()
    weights = model.state_dict()
    places = weights["positional_embedding"][1:].unflatten(0, (3, 3)).permute(2, 0, 1)[None]
    resized = F.interpolate(places, size=(5, 5), mode="bicubic", align_corners=False)[0].flatten(1).T
    weights["positional_embedding"] = torch.cat([weights["positional_embedding"][:1], resized])
    larger.load_state_dict(weights)
    oracle = mmaction2_uniformer_v2(larger, num_frames=6).double()
    torch.testing.assert_close(model.forward_features(clip), oracle_features(oracle, larger, clip))


@pytest.mark.parametrize("design", DESIGNS)
def test_stochastic_depth_drops_what_the_published_code_drops(design: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same draws: a token position in attention and MLP, a clip in local relations, all clips in the end."""
    options = {"design": design, "mlp_drop_rate": 0.0, "drop_path_rate": 0.6, "global_drop_path_rate": 0.6}
    model = small_uniformer_v2(**options).double().train()
    oracle, clip = mmaction2_uniformer_v2(model).double().train(), clip_of(3, *SIZE)
    draws: list[Tensor] = []

    def drawn(module: nn.Module, inputs: tuple[Tensor], _: Tensor) -> Tensor:
        (x,) = inputs
        draws.append(torch.rand(x.shape[0]).lt(1 - module.rate).double() / (1 - module.rate))
        return x * draws[-1].view(-1, *(1,) * (x.dim() - 1))

    for module in oracle.modules():
        if getattr(module, "rate", 0.0) > 0.0:
            module.register_forward_hook(drawn)
    theirs = oracle_features(oracle, model, clip)
    local, positions, clips = [3], [1 + 9], [1]
    per_block = [*local, *positions, *local, *positions] if design == "temporal" else positions * 2
    # The rates rise from zero: nothing is drawn in the first block of either kind.
    assert [len(scale) for scale in draws] == [*per_block, *per_block, *clips, *clips]
    recorded = iter(draws)

    def replayed(module: nn.Module, x: Tensor) -> Tensor:
        scale = next(recorded)
        by_position = type(module).__name__.startswith("Position")
        return scale.view(-1, 1) if by_position else scale.view(-1, *(1,) * (x.dim() - 1))

    for kind in {type(module) for module in model.modules() if hasattr(module, "sample_scale")}:
        monkeypatch.setattr(kind, "sample_scale", replayed)
    torch.testing.assert_close(model.forward_features(clip), theirs)
    assert next(recorded, None) is None
