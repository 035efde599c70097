"""Window attention without its linear layers, as PyTorch users have it.

Every peer gets what its user has at that point and is timed with the copies it needs: it takes one channels-wide tensor
from the token grid into windows (roll, partition) and brings the output back, as a Swin block does before the qkv
projection and after the attention. q plays that tensor; k and v lie in windows already, at no cost, as the projection
leaves them. vtfast takes q, k and v packed in the grid's own layout, as its projection leaves them, and copies nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor
from torch.nn.attention.flex_attention import flex_attention

from benchmarks.measure import NotSupportedError, Outputs, Way
from benchmarks.shapes import Triple, WindowShape
from vtfast import ops, reference
from vtfast.reference.grid_attention import relative_position_bias

MODES = ("forward", "forward + backward")

Core = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class CoreInputs:
    """The same numbers for everybody.

    Args:
        shape: the sizes.
        qkv: [B, T, H, W, 3*C], for vtfast and the reference.
        q: [B, T, H, W, C], for the peers.
        kv: [B*G, N, 2*C], for the peers: rolled and in windows.
        table: [offsets, num_heads], float32 as parameters are under autocast; every peer rounds the bias to its dtype.
        grad_out: [B, T, H, W, C].
    """

    shape: WindowShape
    qkv: Tensor
    q: Tensor
    kv: Tensor
    table: Tensor
    grad_out: Tensor

    @staticmethod
    def make(shape: WindowShape, dtype: torch.dtype, requires_grad: bool) -> "CoreInputs":
        """Standard normal numbers; leaves of a graph if `requires_grad`."""
        generator = torch.Generator().manual_seed(0)

        def normal(*size: int) -> Tensor:
            return torch.randn(size, generator=generator)

        qkv = normal(shape.batch, *shape.grid, 3 * shape.channels).to(dtype)
        table, grad_out = normal(*shape.table_shape), normal(shape.batch, *shape.grid, shape.channels).to(dtype)
        q = qkv[..., : shape.channels].contiguous()
        kv = partition(qkv[..., shape.channels :], shape.window, shape.shift).contiguous()
        for tensor in (qkv, q, kv, table):
            tensor.requires_grad_(requires_grad)
        return CoreInputs(shape, qkv, q, kv, table, grad_out)


def reference_outputs(shape: WindowShape, dtype: torch.dtype, mode: str) -> Outputs:
    """Output, and with the backward the gradients of qkv and table, of vtfast's specification in float64."""
    inputs = CoreInputs.make(shape, dtype, requires_grad=mode != "forward")
    qkv, table = (x.detach().double().requires_grad_(x.requires_grad) for x in (inputs.qkv, inputs.table))
    out = reference.grid_attention(
        qkv, shape.grid, num_heads=shape.num_heads, block=shape.window, shift=shape.shift, bias_table=table
    )
    if mode == "forward":
        return (out,)
    return (out, *torch.autograd.grad(out, (qkv, table), inputs.grad_out.double()))


def core_ways(shape: WindowShape, dtype: torch.dtype, mode: str, names: Sequence[str]) -> list[Way]:
    """The ways of `names` ("eager", "SDPA", "FlexAttention", "compile", "vtfast") on the same numbers."""
    inputs = CoreInputs.make(shape, dtype, requires_grad=mode != "forward")
    makers: dict[str, Callable[[], Way]] = {
        "eager": lambda: _peer("eager", inputs, eager_core(shape), mode),
        "SDPA": lambda: _peer("SDPA", inputs, sdpa_core(inputs, mode), mode),
        "FlexAttention": lambda: _peer("FlexAttention", inputs, flex_core(inputs, mode), mode),
        "compile": lambda: _peer("compile", inputs, torch.compile(eager_core(shape), dynamic=False), mode),
        "vtfast": lambda: vtfast_way(inputs, mode),
    }
    return [makers[name]() for name in names]


def vtfast_way(inputs: CoreInputs, mode: str, name: str = "vtfast", threads: int | None = None) -> Way:
    """`vtfast.ops.grid_attention`; in the mode "backward" its backward alone, on a graph that is kept."""
    shape, leaves = inputs.shape, (inputs.qkv, inputs.table)

    def core() -> Tensor:
        return ops.grid_attention(
            inputs.qkv,
            shape.grid,
            num_heads=shape.num_heads,
            block=shape.window,
            shift=shape.shift,
            bias_table=inputs.table,
        )

    if mode == "forward":
        return Way(name, torch.no_grad()(core), lambda out: (out,), threads)
    if mode == "forward + backward":
        return Way(name, lambda: _step(core, leaves, inputs.grad_out), lambda returned: returned, threads)
    out = core()

    def backward() -> Outputs:
        return (out, *torch.autograd.grad(out, leaves, inputs.grad_out, retain_graph=True))

    return Way(name, backward, lambda returned: returned, threads)


def eager_core(shape: WindowShape) -> Core:
    """What torchvision's `shifted_window_attention_3d` does between and around its two linear layers.

    In order: roll, partition, scale, q k^T, table look-up and bias, mask (built anew in every call, as there), softmax,
    product with v, merge, roll back.
    """
    index = _table_index(shape)

    def core(q: Tensor, kv: Tensor, table: Tensor) -> Tensor:
        q, k, v = _heads(q, kv, shape)
        scores = (q * shape.head_dim**-0.5) @ k.transpose(-2, -1)
        scores = scores + table[index].permute(2, 0, 1).contiguous().to(q.dtype)
        if any(shape.shift):
            mask = _shift_mask(shape, q.dtype)[:, None]  # [G, 1, N, N]
            scores = (scores.unflatten(0, (-1, shape.num_groups)) + mask).flatten(0, 1)
        return _to_grid(scores.softmax(dim=-1) @ v, shape)

    return core


def sdpa_core(inputs: CoreInputs, mode: str) -> Core:
    """`scaled_dot_product_attention` with bias and mask as one 4-D tensor.

    In the forward the tensor is prebuilt, at no cost. With a backward the table needs its gradient, so the tensor is
    gathered from it in every step, and PyTorch then takes its plain path.
    """
    shape, index = inputs.shape, _table_index(inputs.shape)
    mask = _shift_mask(shape, inputs.q.dtype, blocked=float("-inf"))[:, None] if any(shape.shift) else None
    prebuilt = _bias_and_mask(inputs, shape) if mode == "forward" else None

    def core(q: Tensor, kv: Tensor, table: Tensor) -> Tensor:
        q, k, v = _heads(q, kv, shape)
        added = prebuilt
        if added is None:
            added = table[index].permute(2, 0, 1).to(q.dtype)[None]  # [1, heads, N, N]
            added = added if mask is None else added + mask
        if added.shape[0] > 1 and shape.batch > 1:
            added = added.repeat(shape.batch, 1, 1, 1)
        return _to_grid(F.scaled_dot_product_attention(q, k, v, attn_mask=added), shape)

    return core


def flex_core(inputs: CoreInputs, mode: str) -> Core:
    """Compiled FlexAttention whose `score_mod` looks bias and mask up in one prebuilt tensor.

    Looking the bias up in the table and the mask in the tokens' regions needs less memory, but takes longer: 1.4 x
    without shift, 6 x with it. The faster one is the peer.
    """
    shape = inputs.shape
    prebuilt, groups = _bias_and_mask(inputs, shape).float().contiguous(), max(1, _mask_groups(shape))

    def add_bias_and_mask(score: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return score + prebuilt[b % groups, h, i, j]

    compiled = torch.compile(flex_attention, dynamic=False)

    def core(q: Tensor, kv: Tensor, table: Tensor) -> Tensor:
        if mode != "forward":
            raise NotSupportedError("no backward on the CPU")
        q, k, v = _heads(q, kv, shape)
        return _to_grid(compiled(q.contiguous(), k, v, score_mod=add_bias_and_mask), shape)

    return core


def partition(x: Tensor, window: Triple, shift: Triple) -> Tensor:
    """[B, T, H, W, C] -> [B*G, N, C], rolled."""
    if any(shift):
        x = x.roll([-s for s in shift], dims=(1, 2, 3))
    t, h, w = window
    return rearrange(x, "b (nt t) (nh h) (nw w) c -> (b nt nh nw) (t h w) c", t=t, h=h, w=w)


def merge(x: Tensor, shape: WindowShape) -> Tensor:
    """The inverse of `partition`."""
    (t, h, w), (nt, nh, nw) = shape.window, (g // s for g, s in zip(shape.grid, shape.window, strict=True))
    x = rearrange(
        x, "(b nt nh nw) (t h w) c -> b (nt t) (nh h) (nw w) c", nt=nt, nh=nh, nw=nw, t=t, h=h, w=w
    )  # fmt: skip
    return x.roll(shape.shift, dims=(1, 2, 3)) if any(shape.shift) else x


def _peer(name: str, inputs: CoreInputs, core: Core, mode: str) -> Way:
    leaves = (inputs.q, inputs.kv, inputs.table)
    if mode == "forward":
        return Way(name, torch.no_grad()(lambda: core(*leaves)), lambda out: (out,))

    def outputs(returned: Outputs) -> Outputs:
        out, d_q, d_kv, d_table = returned
        return out, torch.cat([d_q, merge(d_kv, inputs.shape)], dim=-1), d_table

    return Way(name, lambda: _step(lambda: core(*leaves), leaves, inputs.grad_out), outputs)


def _step(core: Callable[[], Tensor], leaves: Sequence[Tensor], grad_out: Tensor) -> tuple[Any, ...]:
    out = core()
    return (out.detach(), *torch.autograd.grad(out, leaves, grad_out))


def _heads(q: Tensor, kv: Tensor, shape: WindowShape) -> tuple[Tensor, Tensor, Tensor]:
    """Q in the grid and kv in windows -> q, k, v, each [B*G, heads, N, D]."""
    q = partition(q, shape.window, shape.shift).unflatten(-1, (shape.num_heads, shape.head_dim)).transpose(1, 2)
    k, v = kv.unflatten(-1, (2, shape.num_heads, shape.head_dim)).permute(2, 0, 3, 1, 4).unbind(0)
    return q, k, v


def _to_grid(x: Tensor, shape: WindowShape) -> Tensor:
    """[B*G, heads, N, D] -> [B, T, H, W, C], in memory."""
    return merge(x.transpose(1, 2).flatten(2), shape).contiguous()


def _table_index(shape: WindowShape) -> Tensor:
    """[N, N]: the row of the table for each pair of slots; what a Swin layer keeps as a buffer."""
    rows = torch.arange(shape.table_shape[0], dtype=torch.float64)[:, None]
    return relative_position_bias(rows, shape.window, shape.window, "block")[0].long()


def _mask_groups(shape: WindowShape) -> int:
    return shape.num_groups if any(shape.shift) else 1


def _bias_and_mask(inputs: CoreInputs, shape: WindowShape) -> Tensor:
    """The 4-D tensor [G or 1, heads, N, N] that is added to the scores."""
    bias = inputs.table.detach()[_table_index(shape)].permute(2, 0, 1).to(inputs.q.dtype)[None]
    mask = _shift_mask(shape, inputs.q.dtype, blocked=float("-inf"))[:, None] if any(shape.shift) else None
    return bias.contiguous() if mask is None else bias + mask


def _shift_mask(shape: WindowShape, dtype: torch.dtype, blocked: float = -100.0) -> Tensor:
    """[G, N, N]: `blocked` for pairs of slots that only the roll made neighbours, 0 for the others."""
    region = torch.zeros(shape.grid, dtype=dtype)
    for axis, (size, window, shift) in enumerate(zip(shape.grid, shape.window, shape.shift, strict=True)):
        if shift:
            position = torch.arange(size)
            along = (position >= size - window).to(dtype) + (position >= size - shift).to(dtype)
            region = region * 3 + along.view([-1 if a == axis else 1 for a in range(3)])
    slots = partition(region[None, ..., None], shape.window, (0, 0, 0))[..., 0]  # [G, N]
    difference = slots[:, None, :] - slots[:, :, None]
    return difference.masked_fill(difference != 0, blocked).masked_fill(difference == 0, 0.0)
