"""The attention of an MViT's block between its linear layers, and parts of it, as PyTorch users have it.

Everybody starts from packed qkv as the projection leaves it. Peers do what the published models do: heads to the
front, tokens to channels first for a depthwise `Conv3d` and back, cls apart and back, LayerNorm, scores, relative
positions gathered and added, softmax, residual pooling, and heads to the back, which the output projection needs.
vtfast reads and writes where the tensors lie. The core starts from pooled q, k and v, the peers' by heads already.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor
from torch.nn.attention.flex_attention import flex_attention

from vtfast import ops, use_backend
from vtfast.bench.measure import Outputs, Way
from vtfast.bench.peers.grid_attention import SDPA_BACKENDS, only_backend
from vtfast.bench.shapes import PoolingShape, Triple
from vtfast.reference import TokenPool, relative_rows

KERNEL, EPS = (3, 3, 3), 1e-6
SKIP_KERNEL = (1, 3, 3)

OF_CLIPS = ("qkv", "x", "q", "k", "v")  # the tensors that are not parameters

MOST_SCORES = 2**27  # of the reference at once: 1 GiB

# Of results, gradients, and gradients of norms, which torch's LayerNorm sums up in bfloat16 over all tokens.
TOLERANCES = {
    torch.float32: (1e-5, 1e-4, 1e-4),
    torch.bfloat16: (3e-2, 1e-1, 4e-1),
    torch.float16: (4e-3, 2e-2, 5e-2),
}

Tensors = Mapping[str, Tensor]
Function = Callable[[PoolingShape, Tensors], tuple[Tensor, ...]]


@dataclass(frozen=True)
class Inputs:
    """The same numbers for everybody.

    Args:
        shape: the sizes.
        tensors: what has a gradient: the tokens first, then the parameters.
        grads_out: for each result, in vtfast's layout, [B, N, C].
    """

    shape: PoolingShape
    tensors: dict[str, Tensor]
    grads_out: tuple[Tensor, ...]

    @staticmethod
    def make(shape: PoolingShape, work: str, dtype: torch.dtype, requires_grad: bool, device: str = "cpu") -> "Inputs":
        """Normal numbers; leaves of a graph if `requires_grad`."""
        generator = torch.Generator(device).manual_seed(0)

        def normal(*size: int) -> Tensor:
            return torch.randn(size, generator=generator, device=device)

        def tokens(grid: Triple, channels: int) -> Tensor:
            return normal(shape.batch, 1 + prod(grid), channels)

        outs: Sequence[Triple] = [shape.q_grid]
        if work == SKIP:
            tensors = {"x": tokens(shape.grid, shape.channels)}
        elif work == CORE:
            grids = {"q": shape.q_grid, "k": shape.k_grid, "v": shape.k_grid}
            tensors = {part: tokens(grid, shape.channels) for part, grid in grids.items()}
        else:
            tensors = {"qkv": tokens(shape.grid, 3 * shape.channels)}
            for part in pooled_parts(shape):
                tensors[f"{part}_weight"] = normal(shape.head_dim, 1, *KERNEL) * prod(KERNEL) ** -0.5
                # Weight and bias; together, as the gradient of the bias of keys is zero but for rounding.
                tensors[f"{part}_norm"] = torch.tensor([[1.0], [0.0]], device=device) + 0.1 * normal(2, shape.head_dim)
        if work == POOLING:
            outs = [shape.q_grid, shape.k_grid, shape.k_grid]
        if work in (ATTENTION, CORE) and shape.relative:
            for axis, q_size, k_size in zip("thw", shape.q_grid, shape.k_grid, strict=True):
                tensors[f"rel_pos_{axis}"] = normal(2 * max(q_size, k_size) - 1, shape.head_dim) * 0.1
        tensors = {name: tensor.to(dtype).requires_grad_(requires_grad) for name, tensor in tensors.items()}
        return Inputs(shape, tensors, tuple(tokens(grid, shape.channels).to(dtype) for grid in outs))


def pooled_parts(shape: PoolingShape) -> str:
    """Which of q, k and v are pooled."""
    return "kv" if shape.q_stride is None else "qkv"


def strides(shape: PoolingShape) -> dict[str, Triple]:
    """Of the pooling of each part that is pooled."""
    return {part: shape.kv_stride if part in "kv" else shape.q_stride or (1, 1, 1) for part in pooled_parts(shape)}


def reference_outputs(shape: PoolingShape, work: str, dtype: torch.dtype, mode: str, device: str = "cpu") -> Outputs:
    """Results, and with the backward the gradients of every input, of vtfast's specification in float64."""
    inputs = Inputs.make(shape, work, dtype, mode != "forward", device)
    clips = max(1, MOST_SCORES * shape.batch // shape.num_scores)
    parts = [_exact_outputs(inputs, work, mode, slice(i, i + clips)) for i in range(0, shape.batch, clips)]
    names = [*(OF_CLIPS[:1] * len(inputs.grads_out)), *inputs.tensors]
    return [
        torch.cat(results) if name in OF_CLIPS else torch.stack(results).sum(0)
        for name, *results in zip(names, *parts, strict=False)
    ]


def _exact_outputs(inputs: Inputs, work: str, mode: str, clips: slice) -> Outputs:
    tensors = {
        name: (x[clips] if name in OF_CLIPS else x).detach().double().requires_grad_(x.requires_grad)
        for name, x in inputs.tensors.items()
    }
    exact = Inputs(inputs.shape, tensors, tuple(grad[clips].double() for grad in inputs.grads_out))
    with use_backend("reference"):
        return _run(WORKS[work]["vtfast"], exact, exact.grads_out, mode)


def tolerance(shape: PoolingShape, work: str, dtype: torch.dtype, mode: str) -> list[float]:
    """For each of `reference_outputs`."""
    results, gradients, norms = TOLERANCES[dtype]
    allowed = [results] * (3 if work == POOLING else 1)
    if mode == "forward":
        return allowed
    if work == SKIP:
        return [*allowed, gradients]
    tables = [gradients] * (3 if work in (ATTENTION, CORE) and shape.relative else 0)
    if work == CORE:
        return [*allowed, *[gradients] * 3, *tables]
    return [*allowed, gradients, *[gradients, norms] * len(pooled_parts(shape)), *tables]


def pooling_ways(
    shape: PoolingShape, work: str, dtype: torch.dtype, mode: str, names: Sequence[str], device: str = "cpu"
) -> list[Way]:
    """The ways of `names` of doing `work` on the same numbers.

    Those of `WORKS[work]`, "SDPA" also as a key of `SDPA_BACKENDS`; each also with " compiled", or "compile" for eager.
    """
    inputs = Inputs.make(shape, work, dtype, mode != "forward", device)
    return [_way(name, inputs, work, mode) for name in names]


def _way(name: str, inputs: Inputs, work: str, mode: str) -> Way:
    base = "eager" if name == "compile" else name.removesuffix(" compiled")
    function = WORKS[work]["SDPA" if base in SDPA_BACKENDS else base]
    if base != name:
        function = torch.compile(function, dynamic=False)
    # Results that a peer has by heads.
    by_heads = range(0)
    if work == POOLING and name != "vtfast":
        inputs, by_heads = replace(inputs, grads_out=tuple(_leaves(inputs.grads_out, inputs.shape))), range(3)
    elif work == CORE and name != "vtfast":
        parts = dict(zip("qkv", _leaves([inputs.tensors[part] for part in "qkv"], inputs.shape), strict=True))
        inputs, by_heads = replace(inputs, tensors=inputs.tensors | parts), range(1, 4)

    def outputs(returned: Outputs) -> Outputs:
        return [rearrange(x, "b h n d -> b n (h d)") if i in by_heads else x for i, x in enumerate(returned)]

    def run() -> Outputs:
        with only_backend(SDPA_BACKENDS.get(base)):
            return _run(function, inputs, inputs.grads_out, mode)

    return Way(name, run, outputs)


def _leaves(tensors: Iterable[Tensor], shape: PoolingShape) -> Iterator[Tensor]:
    """Each by heads, in one piece."""
    for tensor in tensors:
        yield _by_heads(tensor.detach(), shape).contiguous().requires_grad_(tensor.requires_grad)


def _run(function: Function, inputs: Inputs, grads_out: tuple[Tensor, ...], mode: str) -> Outputs:
    if mode == "forward":
        with torch.no_grad():
            return function(inputs.shape, inputs.tensors)
    outs = function(inputs.shape, inputs.tensors)
    grads = torch.autograd.grad(outs, list(inputs.tensors.values()), grads_out)
    return (*(out.detach() for out in outs), *grads)


def vtfast_attention(shape: PoolingShape, tensors: Tensors) -> tuple[Tensor, ...]:
    return vtfast_core(shape, _with_parts(tensors, vtfast_pooling(shape, tensors)))


def vtfast_core(shape: PoolingShape, tensors: Tensors) -> tuple[Tensor, ...]:
    q, k, v = (tensors[part] for part in "qkv")
    tables = {name: tensor for name, tensor in tensors.items() if name.startswith("rel_pos")}
    out = ops.pooling_attention(
        q, k, v, shape.q_grid, shape.k_grid, num_heads=shape.num_heads, num_prefix=1, residual=shape.relative, **tables
    )
    return (out,)


def _with_parts(tensors: Tensors, parts: tuple[Tensor, ...]) -> Tensors:
    return {**tensors, **dict(zip("qkv", parts, strict=True))}


def vtfast_pooling(shape: PoolingShape, tensors: Tensors) -> tuple[Tensor, ...]:
    pools = {
        part: TokenPool(KERNEL, stride, "conv", *_parameters(part, tensors)) for part, stride in strides(shape).items()
    }
    return ops.pool_qkv(tensors["qkv"], shape.grid, num_heads=shape.num_heads, num_prefix=1, eps=EPS, **pools)


def vtfast_skip(shape: PoolingShape, tensors: Tensors) -> tuple[Tensor, ...]:
    assert shape.q_stride is not None
    x = tensors["x"]
    return (ops.pool_tokens(x, shape.grid, kernel=SKIP_KERNEL, stride=shape.q_stride, mode="max", num_prefix=1),)


def eager_attention(shape: PoolingShape, tensors: Tensors) -> tuple[Tensor, ...]:
    return eager_core(shape, _with_parts(tensors, eager_pooling(shape, tensors)))


def sdpa_attention(shape: PoolingShape, tensors: Tensors) -> tuple[Tensor, ...]:
    return sdpa_core(shape, _with_parts(tensors, eager_pooling(shape, tensors)))


def eager_core(shape: PoolingShape, tensors: Tensors) -> tuple[Tensor, ...]:
    q, k, v = (tensors[part] for part in "qkv")
    scores = (q * shape.head_dim**-0.5) @ k.transpose(-2, -1)
    if shape.relative:
        scores[:, :, 1:, 1:] += _summed(_relative_scores(shape, q, tensors))
    return (_joined(scores.softmax(dim=-1) @ v, q, shape),)


def sdpa_core(shape: PoolingShape, tensors: Tensors) -> tuple[Tensor, ...]:
    """With the relative positions as a tensor of the scores' size."""
    q, k, v = (tensors[part] for part in "qkv")
    bias = F.pad(_summed(_relative_scores(shape, q, tensors)), (1, 0, 1, 0)) if shape.relative else None
    return (_joined(F.scaled_dot_product_attention(q, k, v, attn_mask=bias), q, shape),)


def flex_core(shape: PoolingShape, tensors: Tensors) -> tuple[Tensor, ...]:
    """FlexAttention that looks the relative scores of a query up by a key's position along each axis."""
    q, k, v = (tensors[part] for part in "qkv")
    if not shape.relative:
        return (_joined(flex_attention(q, k, v), q, shape),)
    # The last column, of zeros, is that of cls, which has no row either.
    t, h, w = (F.pad(scores.flatten(2, 4), (0, 1, 1, 0)) for scores in _relative_scores(shape, q, tensors))
    grid = torch.cartesian_prod(*(torch.arange(size, device=q.device) for size in shape.k_grid))
    cls = torch.tensor([shape.k_grid], device=q.device)
    key_t, key_h, key_w = torch.cat([cls, grid]).T.contiguous()

    def modify(score: Tensor, b: Tensor, head: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return score + t[b, head, i, key_t[j]] + h[b, head, i, key_h[j]] + w[b, head, i, key_w[j]]

    return (_joined(flex_attention(q, k, v, score_mod=modify), q, shape),)


def eager_pooling(shape: PoolingShape, tensors: Tensors) -> tuple[Tensor, ...]:
    parts = dict(zip("qkv", _by_heads(tensors["qkv"], shape, 3), strict=True))
    for part, stride in strides(shape).items():
        weight, *norm = _parameters(part, tensors)
        parts[part] = F.layer_norm(
            _pooled(
                parts[part], shape, lambda x, w=weight, s=stride: F.conv3d(x, w, None, s, (1, 1, 1), groups=len(w))
            ),
            (shape.head_dim,),
            *norm,
            EPS,
        )
    return tuple(parts.values())


def eager_skip(shape: PoolingShape, tensors: Tensors) -> tuple[Tensor, ...]:
    x = tensors["x"][:, None]
    return (_pooled(x, shape, lambda x: F.max_pool3d(x, SKIP_KERNEL, shape.q_stride, (0, 1, 1)))[:, 0],)


def _pooled(
    x: Tensor,  # [B, heads, 1 + T*H*W, D]
    shape: PoolingShape,
    pool: Callable[[Tensor], Tensor],
) -> Tensor:  # [B, heads, 1 + T'*H'*W', D]
    """Cls, and the other tokens pooled, channels first."""
    cls, x = x.tensor_split([1], dim=2)
    batch, heads = x.shape[:2]
    volume = x.transpose(2, 3).reshape(batch * heads, -1, *shape.grid).contiguous()
    return torch.cat([cls, pool(volume).flatten(2).unflatten(0, (batch, heads)).transpose(2, 3)], dim=2)


def _relative_scores(
    shape: PoolingShape,
    q: Tensor,  # [B, heads, 1 + Tq*Hq*Wq, D]
    tensors: Tensors,
) -> tuple[Tensor, Tensor, Tensor]:  # [B, heads, Tq, Hq, Wq, Tk], [..., Hk], [..., Wk]
    volume = q[:, :, 1:].unflatten(2, shape.q_grid)
    t, h, w = (
        tensors[f"rel_pos_{axis}"][relative_rows(*sizes).to(q.device)]
        for axis, *sizes in zip("thw", shape.q_grid, shape.k_grid, strict=True)
    )
    return (
        torch.einsum("bnthwd, tkd -> bnthwk", volume, t),
        torch.einsum("bnthwd, hkd -> bnthwk", volume, h),
        torch.einsum("bnthwd, wkd -> bnthwk", volume, w),
    )


def _summed(scores: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """-> [B, heads, Tq*Hq*Wq, Tk*Hk*Wk]."""
    t, h, w = scores
    return (t[..., :, None, None] + h[..., None, :, None] + w[..., None, None, :]).flatten(5).flatten(2, 4)


def _joined(x: Tensor, q: Tensor, shape: PoolingShape) -> Tensor:
    """[B, heads, N, D] with the residual -> [B, N, C]."""
    if shape.relative:
        x[:, :, 1:] += q[:, :, 1:]
    return x.transpose(1, 2).flatten(2)


def _by_heads(x: Tensor, shape: PoolingShape, packed: int = 1) -> Any:
    """[B, N, C] -> [B, heads, N, D]; several packed in the channels -> as many."""
    parts = x.unflatten(-1, (packed, shape.num_heads, shape.head_dim)).permute(2, 0, 3, 1, 4).unbind(0)
    return parts[0] if packed == 1 else parts


def _parameters(part: str, tensors: Tensors) -> list[Tensor]:
    """Of the convolution, and weight and bias of the norm."""
    return [tensors[f"{part}_weight"], *tensors[f"{part}_norm"].unbind()]


ATTENTION, CORE, POOLING, SKIP = "attention", "core", "pooling", "skip"

WORKS: dict[str, dict[str, Function]] = {
    ATTENTION: {"eager": eager_attention, "SDPA": sdpa_attention, "vtfast": vtfast_attention},
    CORE: {"eager": eager_core, "SDPA": sdpa_core, "FlexAttention": flex_core, "vtfast": vtfast_core},
    POOLING: {"eager": eager_pooling, "vtfast": vtfast_pooling},
    SKIP: {"eager": eager_skip, "vtfast": vtfast_skip},
}
