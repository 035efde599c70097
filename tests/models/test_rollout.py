"""Rollout against products of dense matrices, one for each step, made without the groups."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from vtfast.models.attention import AttentionStep
from vtfast.models.rollout import rollout
from vtfast.ops.divided_attention_weights import divided_attention_weights

GRID = (3, 2, 4)
TOKENS = 1 + 3 * 2 * 4


def steps_of(schemes: Sequence[str], blocks: int, semantics: str = "official") -> list[AttentionStep]:
    """The attention of random q and k, two clips, two heads."""
    return [
        AttentionStep(
            block,
            scheme,
            divided_attention_weights(
                torch.randn(2, TOKENS, 24, dtype=torch.float64),
                GRID, scheme=scheme, num_heads=2, num_prefix=1, semantics=semantics,
            ),
        )
        for block in range(blocks)
        for scheme in schemes
    ]  # fmt: skip


def dense(step: AttentionStep) -> Tensor:  # [B, 1 + T*H*W, 1 + T*H*W]
    """The map of a step, head by head averaged, with the residual connection."""
    identity = torch.eye(TOKENS, dtype=torch.float64).expand(2, -1, -1)
    if step.weights.prefix is None:
        rows = step.weights.rows(torch.arange(1, TOKENS)).mean(dim=1)
        attention = torch.cat([identity[:, :1], rows], dim=1)
    else:
        attention = step.weights.rows(torch.arange(TOKENS)).mean(dim=1)
    return (attention + identity) / 2


def product(steps: Sequence[AttentionStep]) -> Tensor:  # [B, 1 + T*H*W, 1 + T*H*W]
    """Over all steps, the last one leftmost."""
    total = torch.eye(TOKENS, dtype=torch.float64).expand(2, -1, -1)
    for step in steps:
        total = dense(step) @ total
    return total


def share(row: Tensor) -> Tensor:  # [B, 1 + T*H*W] -> [B, T, H, W]
    on_grid = row[:, 1:]
    return (on_grid / on_grid.sum(dim=1, keepdim=True)).unflatten(1, GRID)


@pytest.mark.parametrize("semantics", ["official", "lucidrains"])
@pytest.mark.parametrize(
    ("schemes", "spatial"),
    [
        (("time", "space"), ("space",)),
        (("time", "width", "height"), ("width", "height")),
        (("joint",), ()),
        (("local", "global"), ()),
        (("space",), ("space",)),
    ],
    ids=["divided", "axial", "joint", "sparse", "space"],
)
def test_maps_are_rows_of_the_product_of_all_steps(
    schemes: tuple[str, ...], spatial: tuple[str, ...], semantics: str
) -> None:
    steps = steps_of(schemes, blocks=3, semantics=semantics)
    maps = rollout(steps)
    torch.testing.assert_close(maps.cls, share(product(steps)[:, 0]))
    if spatial:
        in_frames = [step for step in steps if step.scheme in spatial]
        torch.testing.assert_close(maps.space, share(product(in_frames)[:, 0]))
    else:
        assert maps.space is None
    if "time" in schemes:
        over_time = product([step for step in steps if step.scheme == "time"])
        torch.testing.assert_close(maps.time, share(over_time[:, 1:].mean(dim=1)))
    else:
        assert maps.time is None


def test_the_official_time_leaves_every_place_its_share() -> None:
    maps = rollout(steps_of(("time", "space"), blocks=2))
    assert maps.time is not None
    torch.testing.assert_close(maps.time.sum(dim=1), torch.full((2, 2, 4), 1 / 8, dtype=torch.float64))


def test_frames_as_samples_are_put_together_as_clips() -> None:
    qkv = torch.randn(6, 9, 24, dtype=torch.float64)  # two clips of three frames
    weights = divided_attention_weights(qkv, (1, 2, 4), scheme="space", num_heads=2, num_prefix=1)
    steps = [AttentionStep(0, "space", weights)]
    frames = weights.rows(torch.tensor([0])).mean(dim=1)[:, 0, 1:].reshape(2, 3, 2, 4)
    expected = frames / frames.sum(dim=(1, 2, 3), keepdim=True)
    torch.testing.assert_close(rollout(steps, num_clips=2).cls, expected)
    with pytest.raises(ValueError, match="num_clips must divide the batch of 6, got 4"):
        rollout(steps, num_clips=4)


def test_low_precision_is_followed_in_float32() -> None:
    qkv = torch.randn(1, TOKENS, 24, dtype=torch.bfloat16)
    weights = divided_attention_weights(qkv, GRID, scheme="joint", num_heads=2, num_prefix=1)
    assert rollout([AttentionStep(0, "joint", weights)]).cls.dtype == torch.float32


def test_no_steps() -> None:
    with pytest.raises(ValueError, match="at least one step"):
        rollout([])
