"""Every scheme of TimeSformer against an oracle that looks up each group token by token."""

from collections import defaultdict
from collections.abc import Callable
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from oracles import small_timesformer
from torch import Tensor

Grid = tuple[int, int, int]
Place = tuple[int, int, int]

# What the tokens of one group have in common; a half of an odd size is the larger one first.
GROUPS: dict[str, Callable[[Place, Grid], tuple[int, ...]]] = {
    "time": lambda place, grid: (place[1], place[2]),
    "space": lambda place, grid: (place[0],),
    "joint": lambda place, grid: (),
    "width": lambda place, grid: (place[0], place[1]),
    "height": lambda place, grid: (place[0], place[2]),
    "local": lambda place, grid: (2 * place[1] >= grid[1] + grid[1] % 2, 2 * place[2] >= grid[2] + grid[2] % 2),
    "global": lambda place, grid: (place[0] % 2, place[1] % 2, place[2] % 2),
}
STEPS = {
    "divided": ["time", "space"],
    "joint": ["joint"],
    "space": ["space"],
    "sparse": ["local", "global"],
    "axial": ["time", "width", "height"],
}
NUM_HEADS = 4


def attention(
    x: Tensor,  # [B, 1 + T*H*W, C]
    grid: Grid,
    scheme: str,
    weights: dict[str, Tensor],
) -> Tensor:  # [B, 1 + T*H*W, C], cls zero in time
    groups = defaultdict(list)
    for index, place in enumerate(product(*map(range, grid))):
        groups[GROUPS[scheme](place, grid)].append(1 + index)
    out, cls = torch.zeros_like(x), []
    for members in groups.values():
        members = members if scheme == "time" else [0, *members]
        qkv = F.linear(x[:, members], weights["attn.qkv.weight"], weights["attn.qkv.bias"])
        q, k, v = rearrange(qkv, "b n (s h d) -> s b h n d", s=3, h=NUM_HEADS)
        attended = rearrange(F.scaled_dot_product_attention(q, k, v), "b h n d -> b n (h d)")
        projected = F.linear(attended, weights["attn.proj.weight"], weights["attn.proj.bias"])
        if scheme != "time":
            cls.append(projected[:, 0])
            members, projected = members[1:], projected[:, 1:]
        out[:, members] = projected
    if cls:
        out[:, 0] = torch.stack(cls).mean(dim=0)
    return out


def block(
    x: Tensor,  # [B, 1 + T*H*W, C]
    grid: Grid,
    schemes: list[str],
    weights: dict[str, Tensor],
) -> Tensor:  # [B, 1 + T*H*W, C]
    def part(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}

    def norm(x: Tensor, weights: dict[str, Tensor]) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], weights["norm.weight"], weights["norm.bias"], 1e-6)

    for index, scheme in enumerate(schemes):
        step = part(f"steps.over_{scheme}.")
        branch = attention(norm(x, step), grid, scheme, step)
        if index < len(schemes) - 1:
            branch = F.linear(branch, step["fc.weight"], step["fc.bias"])
        if scheme == "time":
            branch = torch.cat([torch.zeros_like(branch[:, :1]), branch[:, 1:]], dim=1)
        x = x + branch
    hidden = F.gelu(F.linear(norm(x, weights), weights["mlp.fc1.weight"], weights["mlp.fc1.bias"]))
    return x + F.linear(hidden, weights["mlp.fc2.weight"], weights["mlp.fc2.bias"])


def oracle(
    x: Tensor,  # [B, 1 + T*H*W, C]
    grid: Grid,
    attention_type: str,
    weights: dict[str, Tensor],
) -> Tensor:  # [B, 1 + T*H*W, C]
    for index in range(2):
        prefix = f"blocks.{index}."
        own = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
        x = block(x, grid, STEPS[attention_type], own)
    return x


@pytest.mark.parametrize("grid", [(4, 4, 6), (3, 3, 5), (2, 1, 3), (1, 1, 1), (5, 2, 1)], ids=str)
@pytest.mark.parametrize("attention_type", ["divided", "joint", "sparse", "axial"])
def test_blocks_agree_with_a_lookup_of_groups(attention_type: str, grid: Grid) -> None:
    model = small_timesformer(attention_type=attention_type).double()
    weights = dict(model.named_parameters())
    clip = torch.randn(2, 3, grid[0], 16 * grid[1], 16 * grid[2], dtype=torch.float64)
    entered: list[Tensor] = []
    model.blocks[0].register_forward_pre_hook(lambda _, inputs: entered.append(inputs[0]))
    logits = model(clip)
    expected = oracle(entered[0], grid, attention_type, weights)
    expected = F.layer_norm(expected[:, 0], (48,), model.norm.weight, model.norm.bias, 1e-6)
    torch.testing.assert_close(logits, F.linear(expected, model.head.weight, model.head.bias))
    names, parameters = zip(*model.blocks.named_parameters(), strict=True)
    cotangent = torch.randn_like(logits)
    expected = F.linear(expected, model.head.weight, model.head.bias)
    grads, expected_grads = (
        dict(zip(names, torch.autograd.grad((out * cotangent).sum(), parameters), strict=True))
        for out in (logits, expected)
    )
    torch.testing.assert_close(grads, expected_grads)


def test_positions_are_added_in_the_published_order() -> None:
    """The cls token has a place but no time; every patch has both."""
    model = small_timesformer()
    entered: list[Tensor] = []
    model.blocks[0].register_forward_pre_hook(lambda _, inputs: entered.append(inputs[0]))
    clip = torch.randn(2, 3, 3, 48, 48)
    model(clip)
    patches = [model.patch_embed(clip[:, :, t : t + 1]).flatten(1, 3) for t in range(3)]
    cls = (model.cls_token + model.pos_embed[:, :1]).expand(2, -1, -1)
    frames = [patch + model.pos_embed[:, 1:] + model.time_embed[:, t] for t, patch in enumerate(patches)]
    torch.testing.assert_close(entered[0], torch.cat([cls, *frames], dim=1))


def test_new_steps_leave_the_grid_as_it_is() -> None:
    """The layer behind a branch starts at zero in every block, so that an image's weights start as they were."""
    model = small_timesformer(attention_type="divided")
    for module in model.blocks:
        torch.nn.init.zeros_(module.steps["over_time"].fc.weight)
        torch.nn.init.zeros_(module.steps["over_time"].fc.bias)
    x = torch.randn(2, 1 + 3 * 2 * 2, 48)
    assert torch.equal(model.blocks[0].steps["over_time"](x, (3, 2, 2)), x)
