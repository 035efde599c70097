"""Problems of grid attention and of the front doors to it that take the same tensors."""

from typing import Any

import torch
from torch import Tensor

from vtfast import ops, reference
from vtfast.check.problems.problem import Operation, Problem, Triple, normal, on_backend, volume


def make_grid_attention(
    grid: Triple,
    block: Triple,
    *,
    dtype: torch.dtype = torch.float32,
    batch: int = 2,
    num_heads: int = 2,
    head_dim: int = 8,
    bias: bool = True,
    pad: bool = True,
    bias_dtype: torch.dtype | None = None,
    key_mask: Tensor | None = None,  # [B, T*H*W] or [B, T, H, W], bool
    open_keys: float | None = None,
    logits: float = 1.0,
    device: torch.device | str = "cpu",
    seed: int = 0,
    **settings: Any,
) -> Problem:
    """Normal q, k, v, table, padding and gradient.

    `logits` is the standard deviation of scale * q k^T, `open_keys` the share of the keys that a mask leaves open.
    """
    generator = torch.Generator().manual_seed(seed)
    num_prefix, channels = settings.get("num_prefix", 0), num_heads * head_dim
    window = settings.get("bias_window", block)
    qkv = normal(generator, batch, num_prefix + volume(grid), 3 * channels)
    qkv[..., : 2 * channels] *= logits**0.5
    out_tokens = volume(grid) + (num_prefix if settings.get("prefix_queries", "none") != "none" else 0)
    leaves = {"qkv": qkv.to(device, dtype)}
    if bias:
        table = normal(generator, volume(2 * size - 1 for size in window), num_heads)
        leaves["bias_table"] = table.to(device, bias_dtype or dtype)
    if pad:
        leaves["pad_qkv"] = normal(generator, 3 * channels).to(device, dtype)
    grad_out = normal(generator, batch, out_tokens, channels).to(device, dtype)
    settings |= {"grid": grid, "block": block, "num_heads": num_heads}
    if open_keys is not None:
        key_mask = torch.rand(batch, volume(grid), generator=generator) < open_keys
    if key_mask is not None:
        settings["key_mask"] = key_mask.to(device)
    return Problem(GRID_ATTENTION, leaves, settings, (grad_out,), head_dim)


def make_window_attention(
    grid: Triple,
    window: Triple,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    seed: int = 0,
    open_keys: float | None = None,
    **settings: Any,
) -> Problem:
    """The same with the tokens as a volume, and the rule for windows that are larger than the grid."""
    names = ("shift", "shrunk_bias", "scale")
    chosen = {name: settings.pop(name) for name in names if name in settings}
    made = make_grid_attention(grid, window, dtype=dtype, device=device, seed=seed, open_keys=open_keys, **settings)
    chosen |= {"window": window, "num_heads": made.settings["num_heads"]}
    if open_keys is not None:
        chosen["key_mask"] = made.settings["key_mask"].unflatten(1, grid)
    leaves = made.leaves | {"qkv": made.tokens.unflatten(1, grid)}
    grads_out = (made.grads_out[0].unflatten(1, grid),)
    return Problem(WINDOW_ATTENTION, leaves, chosen, grads_out, made.head_dim)


def attention_terms(problem: Problem) -> dict[str, float]:
    """Size of what is summed for an element of each result, were no terms to cancel but by chance.

    A score s is known to eps * s at best, so every probability p to that relative accuracy. The terms of the gradients
    are p (dp - delta) with dp = <grad_out, v>, and a row of them, of total weight 1, exists for every query.
    """
    qkv, heads = problem.tokens, problem.settings["num_heads"]
    head_dim = qkv.shape[-1] // 3 // heads
    packed = qkv.double().nan_to_num(0, 0, 0).reshape(-1, 3, heads, head_dim)
    if "pad_qkv" in problem.leaves:
        packed = torch.cat([packed, problem.leaves["pad_qkv"].double().reshape(1, 3, heads, head_dim)])
    if packed.shape[0] == 0:
        return problem.zero_terms()
    scale = abs(problem.settings.get("scale") or head_dim**-0.5)
    q, k, v = packed.norm(dim=-1).amax(dim=(0, 2)).tolist()
    grad = problem.grads_out[0].double().nan_to_num(0, 0, 0).reshape(-1, head_dim).norm(dim=-1).max().item()
    # Vectors of norm a and b that know nothing of each other have a product of about a * b / sqrt(head_dim).
    relative = 1 + scale * q * k * head_dim**-0.5
    dp = grad * v * head_dim**-0.5
    rows = qkv.shape[:-1].numel()
    d_token = max(scale * dp * max(q, k), grad)
    gradients = {
        "qkv": relative * d_token,
        "bias_table": relative * rows**0.5 * dp,
        "pad_qkv": relative * rows**0.5 * d_token,
    }
    out = relative * packed[:, 2].abs().max().item()
    return {"out0": out} | {f"d_{name}": gradients[name] for name in problem.leaves}


GRID_ATTENTION = Operation(
    "grid_attention", ops.grid_attention, reference.grid_attention, attention_terms, ("qkv",), largest_head_dim=128
)
WINDOW_ATTENTION = Operation(
    "window_attention",
    ops.window_attention,
    on_backend(ops.window_attention, "reference"),
    attention_terms,
    ("qkv",),
    largest_head_dim=128,
)
