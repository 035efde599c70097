"""Attention over space and time of a TimeSformer, without linear layers, as PyTorch users have it.

Every peer is timed with the copies it needs, and there are two places to start from:

* "block": what the block of the published models gives, in their order of tokens, time fastest. There the groups of
  "time" are a view of packed qkv, and "joint" has nothing to arrange. "space" takes one channels-wide tensor into
  frames, repeats cls for each, and brings the output back with cls's mean over the frames, as the block does before
  the projection and after the attention. q plays that tensor; k and v lie in frames already, at no cost.
* "packed": packed qkv in vtfast's order, time slowest. The peer takes it into groups with cls in each, in one copy
  where a view does not do, and brings the output back. For schemes without published models it is the only start.

vtfast takes qkv packed, time slowest, in both, and copies nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor

from vtfast import ops, use_backend
from vtfast.bench.measure import Outputs, Way
from vtfast.bench.peers.grid_attention import SDPA_BACKENDS, Heads, only_backend, step
from vtfast.bench.shapes import SpaceTimeShape

# A peer's name with this at its end starts from packed qkv.
PACKED = ", packed"

# A yardstick: the attention alone, whose q, k and v are made before the clock starts and whose output stays in groups.
ALONE = " alone"


@dataclass(frozen=True)
class Start:
    """Where a peer starts from.

    Args:
        activations: of qkv [B, 1 + T*H*W, 3*C], time slowest, what the peer is given.
        heads: of the activations, q, k and v, each [B*G, heads, N, D].
        to_clip: of the result [B*G, heads, N, D], what the peer returns, [B, P + T*H*W, C] in its order of tokens.
        d_qkv: of the gradients of the activations, that of qkv.
        time_fastest: whether that is the order of the peer's tokens.
    """

    activations: Callable[[Tensor, SpaceTimeShape], tuple[Tensor, ...]]
    heads: Callable[[SpaceTimeShape, tuple[Tensor, ...]], Heads]
    to_clip: Callable[[Tensor, SpaceTimeShape], Tensor]
    d_qkv: Callable[[tuple[Tensor, ...], SpaceTimeShape], Tensor]
    time_fastest: bool


@dataclass(frozen=True)
class Inputs:
    """The same numbers for everybody, in vtfast's order.

    Args:
        shape: the sizes.
        qkv: [B, 1 + T*H*W, 3*C].
        grad_out: [B, 1 + T*H*W, C], without cls for "time".
    """

    shape: SpaceTimeShape
    qkv: Tensor
    grad_out: Tensor

    @staticmethod
    def make(shape: SpaceTimeShape, dtype: torch.dtype, requires_grad: bool, device: str = "cpu") -> "Inputs":
        """Standard normal numbers; a leaf of a graph if `requires_grad`."""
        generator = torch.Generator(device).manual_seed(0)

        def normal(tokens: int, channels: int) -> Tensor:
            return torch.randn(shape.batch, tokens, channels, generator=generator, device=device).to(dtype)

        tokens = shape.num_tokens // shape.batch
        qkv = normal(tokens, 3 * shape.channels).requires_grad_(requires_grad)
        return Inputs(shape, qkv, normal(tokens if shape.has_cls else tokens - 1, shape.channels))


def attention(qkv: Tensor, shape: SpaceTimeShape) -> Tensor:
    """The operation of vtfast on whatever backend is in force."""
    return ops.divided_attention(qkv, shape.grid, scheme=shape.scheme, num_heads=shape.num_heads, num_prefix=1)


def reference_outputs(shape: SpaceTimeShape, dtype: torch.dtype, mode: str, device: str = "cpu") -> Outputs:
    """Output, and with the backward the gradient of qkv, of vtfast's specification in float64.

    As many clips at a time as have 1 GiB of scores.
    """
    backward = mode != "forward"
    inputs = Inputs.make(shape, dtype, backward, device)
    clips = max(1, 2**27 * shape.batch // shape.num_scores)
    outs, d_qkvs = [], []
    for part, grad_out in zip(inputs.qkv.split(clips), inputs.grad_out.split(clips), strict=True):
        qkv = part.detach().double().requires_grad_(backward)
        with use_backend("reference"):
            out = attention(qkv, shape)
        outs.append(out.detach())
        if backward:
            d_qkvs += torch.autograd.grad(out, [qkv], grad_out.double())
    return (torch.cat(outs), *([torch.cat(d_qkvs)] if backward else []))


def sampled_rows(shape: SpaceTimeShape, dtype: torch.dtype, rows: Sequence[int]) -> Tensor:
    """Rows of the output [B, len(rows), C] in float64, each from a mask of the keys of one query."""
    qkv = Inputs.make(shape, dtype, requires_grad=False).qkv.double()
    q, k, v = _heads(qkv, shape)  # [B, heads, 1 + T*H*W, D]
    frames, height, width = shape.grid
    index = torch.arange(frames * height * width)
    group = {"time": index % (height * width), "space": index // (height * width), "joint": index * 0}[shape.scheme]
    group = F.pad(group, (1, 0), value=-1)  # of cls, none of its own
    outs = []
    for row in rows:
        token = row if shape.has_cls else row + 1
        # What cls gives is its mean over the groups.
        own = group[token : token + 1] if token else group[1:].unique()
        mask = (group == own[:, None]) | (group == -1) * shape.has_cls  # [1 or G, 1 + T*H*W]
        scores = (q[:, :, token : token + 1] @ k.transpose(-2, -1)) * shape.head_dim**-0.5
        weights = scores.masked_fill(~mask, float("-inf")).softmax(dim=-1)  # [B, heads, 1 or G, 1 + T*H*W]
        outs.append((weights @ v).mean(dim=2).flatten(1))
    return torch.stack(outs, dim=1)


def space_time_ways(
    shape: SpaceTimeShape, dtype: torch.dtype, mode: str, names: Sequence[str], device: str = "cpu"
) -> list[Way]:
    """The ways of `names` on the same numbers.

    "vtfast"; "eager", "compile", "SDPA" or a key of `SDPA_BACKENDS`, each also with `PACKED`; the latter with `ALONE`.
    """
    inputs = Inputs.make(shape, dtype, mode != "forward", device)
    ways = []
    for name in names:
        if name == "vtfast":
            ways.append(vtfast_way(inputs, mode))
        elif name.endswith(ALONE):
            ways.append(_alone(name, inputs, mode))
        else:
            ways.append(_peer(name, inputs, mode))
    return ways


def vtfast_way(inputs: Inputs, mode: str) -> Way:
    """The compiled `vtfast.ops.divided_attention`."""

    def core() -> Tensor:
        with use_backend("native"):
            return attention(inputs.qkv, inputs.shape)

    if mode == "forward":
        return Way("vtfast", torch.no_grad()(core), lambda out: (out,))
    return Way("vtfast", lambda: step(core, [inputs.qkv], inputs.grad_out), lambda returned: returned)


def start_of(name: str, shape: SpaceTimeShape) -> Start:
    """The start of a peer."""
    return _PACKED if name.endswith(PACKED) else _BLOCK.get(shape.scheme, _PACKED)


def time_fastest(x: Tensor, shape: SpaceTimeShape) -> Tensor:
    """[B, P + T*H*W, C], time slowest -> time fastest."""
    return _reordered(x, "b (t s) c -> b (s t) c", shape)


def time_slowest(x: Tensor, shape: SpaceTimeShape) -> Tensor:
    """The inverse of `time_fastest`."""
    return _reordered(x, "b (s t) c -> b (t s) c", shape)


def _reordered(x: Tensor, pattern: str, shape: SpaceTimeShape) -> Tensor:
    frames, height, width = shape.grid
    prefix = x.shape[1] - frames * height * width
    return torch.cat([x[:, :prefix], rearrange(x[:, prefix:], pattern, t=frames)], dim=1)


def _eager(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scores = (q @ k.transpose(-2, -1)) * q.shape[-1] ** -0.5
    return scores.softmax(dim=-1) @ v


def _peer(name: str, inputs: Inputs, mode: str) -> Way:
    shape, start, base = inputs.shape, start_of(name, inputs.shape), name.removesuffix(PACKED)
    core: Callable[..., Tensor] = _core(base, shape, start)
    activations = tuple(
        x.detach().contiguous().requires_grad_(mode != "forward") for x in start.activations(inputs.qkv, shape)
    )
    grad_out = time_fastest(inputs.grad_out, shape) if start.time_fastest else inputs.grad_out

    def outputs(returned: Outputs) -> Outputs:
        out, *grads = returned
        out = time_slowest(out, shape) if start.time_fastest else out
        return (out, start.d_qkv(tuple(grads), shape)) if grads else (out,)

    def run() -> Any:
        with only_backend(SDPA_BACKENDS.get(base)):
            if mode == "forward":
                with torch.no_grad():
                    return (core(*activations),)
            return step(lambda: core(*activations), activations, grad_out)

    return Way(name, run, outputs)


def _core(base: str, shape: SpaceTimeShape, start: Start) -> Callable[..., Tensor]:
    attend = _eager if base in ("eager", "compile") else F.scaled_dot_product_attention

    def core(*activations: Tensor) -> Tensor:
        return start.to_clip(attend(*start.heads(shape, activations)), shape)

    return torch.compile(core, dynamic=False) if base == "compile" else core


def _alone(name: str, inputs: Inputs, mode: str) -> Way:
    """`scaled_dot_product_attention` with nothing around it."""
    shape = inputs.shape
    heads = [x.detach().contiguous() for x in _PACKED.heads(shape, (inputs.qkv,))]
    leaves = [x.requires_grad_(mode != "forward") for x in heads]
    grad_out = torch.ones_like(leaves[0])

    def run() -> Any:
        with only_backend(SDPA_BACKENDS[name.removesuffix(ALONE)]):
            if mode == "forward":
                with torch.no_grad():
                    return F.scaled_dot_product_attention(*leaves)
            return step(lambda: F.scaled_dot_product_attention(*leaves), leaves, grad_out)

    return Way(name, run)


def _heads(groups: Tensor, shape: SpaceTimeShape) -> Heads:
    """[..., N, 3*C] -> q, k and v, each [..., heads, N, D]: a view."""
    q, k, v = groups.unflatten(-1, (3, shape.num_heads, -1)).movedim(-3, 0).transpose(-3, -2).unbind(0)
    return q, k, v


def _with_cls_mean(groups: Tensor, tokens: Tensor) -> Tensor:
    """The mean of cls over the groups [B, G, 1 + N, C], before the tokens [B, T*H*W, C]."""
    return torch.cat([groups[:, :, 0].mean(dim=1, keepdim=True), tokens], dim=1)


def _packed_heads(shape: SpaceTimeShape, activations: tuple[Tensor, ...]) -> Heads:
    (qkv,) = activations
    groups = rearrange(
        qkv[:, 1:].unflatten(1, shape.grid),
        "b (nt t dt) (nh h dh) (nw w dw) c -> b (nt dt nh dh nw dw) (t h w) c",
        **_sizes(shape),
    )
    if shape.has_cls:
        cls = repeat(qkv[:, :1], "b p c -> b g p c", g=shape.num_groups)
        groups = torch.cat([cls, groups], dim=2)
    return _heads(groups.flatten(0, 1), shape)


def _packed_to_clip(x: Tensor, shape: SpaceTimeShape) -> Tensor:
    groups = rearrange(x, "(b g) heads n d -> b g n (heads d)", g=shape.num_groups)
    tokens = groups[:, :, 1:] if shape.has_cls else groups
    (nt, nh, nw), d = (g // b for g, b in zip(shape.grid, shape.block, strict=True)), shape.dilation
    tokens = rearrange(
        tokens,
        "b (nt dt nh dh nw dw) (t h w) c -> b (nt t dt nh h dh nw w dw) c",
        **_sizes(shape), nt=nt // d, nh=nh // d, nw=nw // d,
    )  # fmt: skip
    return _with_cls_mean(groups, tokens) if shape.has_cls else tokens.contiguous()


def _sizes(shape: SpaceTimeShape) -> dict[str, int]:
    (t, h, w), d = shape.block, shape.dilation
    return {"t": t, "h": h, "w": w, "dt": d, "dh": d, "dw": d}


def _time_heads(shape: SpaceTimeShape, activations: tuple[Tensor, ...]) -> Heads:
    (qkv,) = activations
    return _heads(rearrange(qkv[:, 1:], "b (s t) c -> (b s) t c", t=shape.grid[0]), shape)


def _time_to_clip(x: Tensor, shape: SpaceTimeShape) -> Tensor:
    return rearrange(x, "(b s) heads t d -> b (s t) (heads d)", b=shape.batch)


def _space_activations(qkv: Tensor, shape: SpaceTimeShape) -> tuple[Tensor, ...]:
    """Q of the clip, time fastest; k and v in frames with cls in each."""
    q, kv = qkv.split([shape.channels, 2 * shape.channels], dim=-1)
    return time_fastest(q, shape), _in_frames(time_fastest(kv, shape), shape)


def _in_frames(x: Tensor, shape: SpaceTimeShape) -> Tensor:
    """[B, 1 + H*W*T, C] -> [B*T, 1 + H*W, C]."""
    cls = repeat(x[:, :1], "b p c -> (b t) p c", t=shape.grid[0])
    return torch.cat([cls, rearrange(x[:, 1:], "b (s t) c -> (b t) s c", t=shape.grid[0])], dim=1)


def _space_heads(shape: SpaceTimeShape, activations: tuple[Tensor, ...]) -> Heads:
    x, kv = activations
    q = _in_frames(x, shape).unflatten(-1, (shape.num_heads, -1)).transpose(1, 2)
    k, v = kv.unflatten(-1, (2, shape.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
    return q, k, v


def _space_to_clip(x: Tensor, shape: SpaceTimeShape) -> Tensor:
    """By way of [B*T, 1 + H*W, C], which the output projection needs."""
    groups = rearrange(x, "(b t) heads n d -> b t n (heads d)", b=shape.batch).contiguous()
    return _with_cls_mean(groups, rearrange(groups[:, :, 1:], "b t s c -> b (s t) c"))


def _d_qkv_of_space(grads: tuple[Tensor, ...], shape: SpaceTimeShape) -> Tensor:
    d_q, d_kv = grads
    d_kv = d_kv.unflatten(0, (shape.batch, -1))  # [B, T, 1 + H*W, 2*C]
    d_kv = torch.cat([d_kv[:, :, 0].sum(dim=1, keepdim=True), d_kv[:, :, 1:].flatten(1, 2)], dim=1)
    return torch.cat([time_slowest(d_q, shape), d_kv], dim=-1)


def _joint_to_clip(x: Tensor, shape: SpaceTimeShape) -> Tensor:
    return rearrange(x, "b heads n d -> b n (heads d)").contiguous()


def _packed_in_order(qkv: Tensor, shape: SpaceTimeShape) -> tuple[Tensor, ...]:
    return (time_fastest(qkv, shape),)


def _d_qkv_in_order(grads: tuple[Tensor, ...], shape: SpaceTimeShape) -> Tensor:
    return time_slowest(grads[0], shape)


_BLOCK = {
    "time": Start(_packed_in_order, _time_heads, _time_to_clip, _d_qkv_in_order, time_fastest=True),
    "space": Start(_space_activations, _space_heads, _space_to_clip, _d_qkv_of_space, time_fastest=True),
    "joint": Start(
        _packed_in_order,
        lambda shape, activations: _heads(activations[0], shape),
        _joint_to_clip,
        _d_qkv_in_order,
        time_fastest=True,
    ),
}

_PACKED = Start(
    lambda qkv, shape: (qkv,),
    _packed_heads,
    _packed_to_clip,
    lambda grads, shape: grads[0],
    time_fastest=False,
)
