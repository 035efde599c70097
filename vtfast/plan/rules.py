"""The rule of every operator of vtfast: what a call of it computes and moves."""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

from torch import Tensor

from vtfast.ops.grid_attention import PREFIX_QUERIES
from vtfast.ops.pool_tokens import MODES
from vtfast.plan.cost import Call
from vtfast.plan.geometry import attending_pairs, taps_inside, tokens_covered
from vtfast.plan.traffic import bytes_of

__all__ = ["RULES"]

# Arguments by name, results, and the call as the generic rule has it: its name, dtype and traffic.
Rule = Callable[[dict[str, Any], Any, Call], Call]

# Matrix products of attention: scores and values; and in the backward the scores again, the gradients of values,
# weights, queries and keys.
_FORWARD_PRODUCTS, _BACKWARD_PRODUCTS = 2, 5


def _grid_attention(products: int) -> Rule:
    def rule(of: dict[str, Any], out: Any, call: Call) -> Call:
        qkv, heads, prefix = of["qkv"], of["num_heads"], of["num_prefix"]
        queries = PREFIX_QUERIES[of["prefix_queries"]]
        channels = qkv.shape[-1] // 3
        pairs = (
            heads
            * qkv.shape[0]
            * attending_pairs(
                of["grid"], of["block"], of["dilation"], of["shift"], of["pad_keys"], prefix, of["prefix_keys"], queries
            )
        )
        # The prefix is not touched where it neither attends nor is attended to. The statistics of the softmax are an
        # intermediate result that another kernel need not have.
        takes_part = of["prefix_keys"] or queries != "none"
        tokens = qkv.shape[0] * (prod(of["grid"]) + (prefix if takes_part else 0))
        results = qkv.shape[0] * (prod(of["grid"]) + (prefix if queries != "none" else 0))
        small = bytes_of([of["bias_table"], of["pad_qkv"]])
        unit = channels * qkv.element_size()
        read, written = 3 * tokens * unit + small + bytes_of(of["key_mask"]), results * unit
        if "grad_out" in of:
            read, written = read + results * unit, 3 * tokens * unit + small
        flops = products * 2 * pairs * (channels // heads)
        lookups = pairs if of["bias_table"] is not None else 0
        return Call(call.name, call.dtype, flops, exps=pairs, read=read, written=written, lookups=lookups)

    return rule


def _pooling_attention(products: int) -> Rule:
    def rule(of: dict[str, Any], out: Any, call: Call) -> Call:
        q, k, v = of["q"], of["k"], of["v"]
        heads = of["num_heads"]
        pairs = q.shape[0] * heads * q.shape[1] * k.shape[1]
        tables = bytes_of([of["rel_pos_t"], of["rel_pos_h"], of["rel_pos_w"]])
        read, written = bytes_of([q, k, v]) + tables, bytes_of(q)
        if "grad_out" in of:
            read, written = read + bytes_of(of["grad_out"]), bytes_of([q, k, v]) + tables
        # A query's products with the relative positions of all keys along each axis; in the backward those again, and
        # the gradients of queries and positions.
        positions = sum(
            size for axis, size in zip("thw", of["k_grid"], strict=True) if of[f"rel_pos_{axis}"] is not None
        )
        relative = 2 * q.numel() * positions * (3 if "grad_out" in of else 1)
        flops = products * 2 * pairs * (q.shape[2] // heads)
        return Call(call.name, call.dtype, products=flops, vector=relative, exps=pairs, read=read, written=written)

    return rule


def _depthwise_conv3d(of: dict[str, Any], out: Any, call: Call) -> Call:
    x, weight = of["x"], of["weight"]
    _, taps = taps_inside(x.shape[1:4], weight.shape[2:], of["stride"], of["padding"])
    passes = sum(of["wanted"][:2]) if "grad_out" in of else 1
    flops = 2 * x.shape[0] * x.shape[-1] * taps * passes
    return _vector_call(call, flops)


def _pooled(
    x: Tensor, channels: int, of: dict[str, Any], mode: int, kernel: Sequence[int], stride: Sequence[int]
) -> tuple[int, int]:
    """Of one pooling of `channels` channels: floating point operations, and bytes of the tokens that it looks at."""
    unit = x.shape[0] * channels * x.element_size()
    if mode >= len(MODES):
        return 0, unit * x.shape[1]
    padding = [k // 2 for k in kernel]
    _, taps = taps_inside(of["grid"], kernel, stride, padding)
    # The maximum only compares.
    per_tap = {"conv": 2, "avg": 1, "max": 0}[MODES[mode]]
    covered = of["num_prefix"] + tokens_covered(of["grid"], kernel, stride, padding)
    return per_tap * x.shape[0] * channels * taps, unit * covered


def _pool_tokens(of: dict[str, Any], out: Any, call: Call) -> Call:
    x = of["x"]
    flops, looked_at = _pooled(x, x.shape[-1], of, of["mode"], of["kernel"], of["stride"])
    # The backward of a convolution is two more of its size: the gradients of input and weight.
    passes = 2 if "grad_out" in of and of["weight"] is not None else 1
    return _vector_call(call, flops * passes, bytes_of(x) - looked_at)


def _pool_qkv(of: dict[str, Any], out: Any, call: Call) -> Call:
    qkv, flops, skipped = of["qkv"], 0, bytes_of(of["qkv"])
    for index, part in enumerate("qkv"):
        axes = slice(3 * index, 3 * index + 3)
        one, looked_at = _pooled(
            qkv, qkv.shape[-1] // 3, of, of["modes"][index], of["kernels"][axes], of["strides"][axes]
        )
        flops += one * (2 if "d_q" in of and of[f"{part}_weight"] is not None else 1)
        skipped -= looked_at
    return _vector_call(call, flops, skipped)


def _vector_call(call: Call, flops: int, not_read: int = 0) -> Call:
    return Call(call.name, call.dtype, vector=flops, read=call.read - not_read, written=call.written)


def _rotary_embedding(of: dict[str, Any], out: Any, call: Call) -> Call:
    qkv, heads, turned = of["qkv"], of["num_heads"], of["cos"].shape[-1]
    # Two multiplications and a sum for each of the turned channels of q and k.
    flops = 3 * 2 * qkv.shape[0] * prod(of["grid"]) * heads * turned
    return _vector_call(call, flops)


RULES: dict[str, Rule] = {
    "vtfast::grid_attention": _grid_attention(_FORWARD_PRODUCTS),
    "vtfast::grid_attention_backward": _grid_attention(_BACKWARD_PRODUCTS),
    "vtfast::pooling_attention": _pooling_attention(_FORWARD_PRODUCTS),
    "vtfast::pooling_attention_backward": _pooling_attention(_BACKWARD_PRODUCTS),
    "vtfast::depthwise_conv3d": _depthwise_conv3d,
    "vtfast::depthwise_conv3d_backward": _depthwise_conv3d,
    "vtfast::pool_tokens": _pool_tokens,
    "vtfast::pool_tokens_backward": _pool_tokens,
    "vtfast::pool_qkv": _pool_qkv,
    "vtfast::pool_qkv_backward": _pool_qkv,
    "vtfast::rotary_embedding": _rotary_embedding,
}
