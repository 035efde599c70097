"""Depthwise convolution: result and all gradients of the kernels against the reference, by tolerance.py's rule."""

import math
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from attention_check import every_dtype
from depthwise_check import Triple, make_depthwise
from kernel_check import assert_same, check, evaluate, native
from target import CPU_KERNELS, DEVICE, EMULATED, thinned
from torch import Tensor

pytestmark = [pytest.mark.requires_native, pytest.mark.every_device]

BLOCK, LARGE = (3, 3, 3), (5, 5, 5)
either_block = pytest.mark.parametrize("kernel", [BLOCK, LARGE], ids=["3", "5"])

GRID = (3, 9, 10)
# Those of published models, even kernels, strides larger than kernel and grid, single axes, and paddings from none to
# more than the kernel, where whole windows see nothing.
WINDOWS: dict[str, dict[str, Any]] = {
    "block": {"kernel": BLOCK, "residual": True},
    "large": {"kernel": LARGE, "residual": True},
    "time": {"kernel": (3, 1, 1), "residual": True},
    "plane": {"kernel": (1, 3, 3), "residual": True},
    "row": {"kernel": (1, 1, 3)},
    "uneven": {"kernel": (5, 1, 3), "residual": True},
    "huge": {"kernel": (7, 1, 11), "residual": True},
    "one": {"kernel": (1, 1, 1), "residual": True},
    "one-in-two": {"kernel": (1, 1, 1), "stride": (1, 2, 2)},
    "halved": {"kernel": BLOCK, "stride": (1, 2, 2)},
    "large-halved": {"kernel": LARGE, "stride": (2, 2, 2)},
    "sparse": {"kernel": BLOCK, "stride": (5, 11, 12)},
    "sideways": {"kernel": BLOCK, "stride": (1, 1, 3)},
    "unpadded": {"kernel": BLOCK, "padding": (0, 0, 0)},
    "whole": {"kernel": GRID, "padding": (0, 0, 0)},
    "far": {"kernel": BLOCK, "padding": (4, 3, 5)},
    "far-halved": {"kernel": (2, 3, 3), "stride": (2, 2, 3), "padding": (3, 4, 2)},
    "even": {"kernel": (2, 2, 2), "stride": (2, 2, 2), "padding": (0, 0, 0)},
    "even-padded": {"kernel": (4, 4, 2), "stride": (2, 3, 1), "padding": (1, 2, 1)},
}


@every_dtype
@pytest.mark.parametrize("window", thinned(WINDOWS, "block", "large", "time", "halved", "far-halved"))
def test_windows(window: str, dtype: torch.dtype) -> None:
    check(make_depthwise(GRID, **WINDOWS[window], dtype=dtype))


CHANNELS = [8, 16, 24, 40, 64, 72, 136] + ([1, 7, 17, 33, 100] if CPU_KERNELS else [12])


@every_dtype
@either_block
@pytest.mark.parametrize("channels", thinned(CHANNELS, 8, 12, 72) if EMULATED else CHANNELS)
def test_channels(channels: int, kernel: Triple, dtype: torch.dtype) -> None:
    check(make_depthwise((2, 4, 5), kernel, channels=channels, dtype=dtype))


SIZES = [(1, 1, 1), (1, 1, 7), (5, 1, 1), (1, 14, 14), (2, 3, 17), (8, 7, 7), (1, 2, 33)]


@every_dtype
@either_block
@pytest.mark.parametrize("grid", thinned(SIZES, (1, 1, 1), (2, 3, 17)), ids=str)
def test_grids(grid: Triple, kernel: Triple, dtype: torch.dtype) -> None:
    """Among them those smaller than the kernel."""
    check(make_depthwise(grid, kernel, residual=True, dtype=dtype))


@every_dtype
@pytest.mark.parametrize(
    ("bias", "residual", "batch"),
    thinned(product([True, False], [True, False], [1, 3]), (False, False, 1), (False, True, 3)),
)
def test_bias_residual_and_batch(bias: bool, residual: bool, batch: int, dtype: torch.dtype) -> None:
    check(make_depthwise((2, 5, 4), BLOCK, bias=bias, residual=residual, batch=batch, dtype=dtype))


@pytest.mark.skipif(EMULATED, reason="the size of a model")
@every_dtype
@either_block
def test_a_block_of_a_model(kernel: Triple, dtype: torch.dtype) -> None:
    """More than one block of threads adds up for the weights."""
    check(make_depthwise((4, 28, 28), kernel, channels=64, batch=1, residual=True, dtype=dtype))


def test_sums_of_many_tokens() -> None:
    """Errors of a float32 sum of 100,000 terms may not pile up."""
    grid = (8, 16, 16) if EMULATED else (16, 80, 80)
    check(make_depthwise(grid, (1, 1, 1), channels=8, batch=1))


def ncdhw(x: Tensor) -> Tensor:
    """The same tokens, channels slowest but for the batch, as in a contiguous volume."""
    return x.movedim(-1, 1).contiguous().movedim(1, -1)


def behind_cls(x: Tensor) -> Tensor:
    """The same tokens as the grid's part of those of frames that begin with a cls."""
    frames = x.flatten(2, 3)
    with_cls = torch.cat([torch.full_like(frames[:, :, :1], math.nan), frames], dim=2)
    return with_cls[:, :, 1:].unflatten(2, x.shape[2:4])


def tokens_first(x: Tensor) -> Tensor:
    """The same tokens in the order of a transformer that has the batch second: place, clip, frame."""
    return x.permute(2, 3, 0, 1, 4).contiguous().permute(2, 3, 0, 1, 4)


def columns_first(x: Tensor) -> Tensor:
    """The same tokens with rows nearer in memory than columns."""
    return x.transpose(2, 3).contiguous().transpose(2, 3)


def every_second(x: Tensor) -> Tensor:
    """The same tokens as every second one of each axis of a larger grid."""
    larger = x.new_full([x.shape[0], *(2 * size for size in x.shape[1:4]), x.shape[4]], math.nan)
    larger[:, ::2, 1::2, ::2] = x
    return larger[:, ::2, 1::2, ::2]


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "ncdhw": ncdhw,
    "behind-cls": behind_cls,
    "tokens-first": tokens_first,
    "columns-first": columns_first,
    "every-second": every_second,
}


@every_dtype
@pytest.mark.parametrize("window", ["block", "halved"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layout_of_tokens_and_gradient_does_not_matter(layout: str, window: str, dtype: torch.dtype) -> None:
    problem = make_depthwise(GRID, **WINDOWS[window], dtype=dtype)
    changed = problem.of_clips(LAYOUTS[layout])
    assert not changed.tokens.is_contiguous()
    assert not changed.grads_out[0].is_contiguous()
    assert_same(evaluate(changed), evaluate(problem))


def test_a_gradient_that_is_one_number() -> None:
    problem = make_depthwise(GRID, BLOCK, residual=True)
    grad = torch.full((1,), 0.5, device=DEVICE).expand_as(problem.grads_out[0])
    problem.grads_out = (grad.contiguous(),)
    expected = evaluate(problem)
    problem.grads_out = (grad,)
    assert_same(evaluate(problem), expected)


@pytest.mark.parametrize("window", ["block", "large", "halved", "one"])
@pytest.mark.parametrize("wanted", ["x", "weight", "bias", "x weight", "x bias", "weight bias"])
def test_only_the_gradients_that_are_wanted(wanted: str, window: str) -> None:
    """Of a frozen weight, a clip that needs none, or a bias that is trained alone."""
    problem = make_depthwise(GRID, **WINDOWS[window])
    expected = evaluate(problem)
    leaves = [problem.leaves[name].requires_grad_() for name in wanted.split()]
    grads = torch.autograd.grad(native(problem), leaves, problem.grads_out)
    for name, grad in zip(wanted.split(), grads, strict=True):
        assert torch.equal(grad, expected[f"d_{name}"]), name


@every_dtype
@either_block
@pytest.mark.parametrize("value", [math.nan, math.inf], ids=str)
def test_what_is_not_finite_stays_in_its_windows(value: float, kernel: Triple, dtype: torch.dtype) -> None:
    problem = make_depthwise(GRID, kernel, residual=True, dtype=dtype)
    for place in ((0, 1, 4, 5, 3), (0, 0, 0, 0, 0), (1, 2, 8, 9, 15)):
        problem.tokens[place] = value
    results = evaluate(problem)
    reached = torch.zeros(problem.tokens.shape, dtype=torch.bool)
    half = kernel[0] // 2
    for b, t, h, w, c in ((0, 1, 4, 5, 3), (0, 0, 0, 0, 0), (1, 2, 8, 9, 15)):
        t_near, h_near, w_near = (slice(max(0, at - half), at + half + 1) for at in (t, h, w))
        reached[b, t_near, h_near, w_near, c] = True
    assert torch.equal(results["out0"].isfinite().cpu(), ~reached)
    assert results["d_x"].isfinite().all()
    channels = torch.tensor([channel not in (0, 3, 15) for channel in range(16)])
    assert torch.equal(results["d_weight"].isfinite().flatten(1).all(dim=1).cpu(), channels)
    assert results["d_bias"].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_float32_parameters_of_low_precision_tokens(dtype: torch.dtype) -> None:
    problem = make_depthwise(GRID, BLOCK, residual=True, dtype=dtype, parameter_dtype=torch.float32)
    check(problem)
    results = evaluate(problem)
    assert all(results[f"d_{name}"].dtype == tensor.dtype for name, tensor in problem.leaves.items())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("window", ["block", "large", "halved"])
def test_low_precision_is_rounded_once(window: str, dtype: torch.dtype) -> None:
    """A convolution rounded before bias and residual are added would differ."""
    problem = make_depthwise((2, 5, 6), **WINDOWS[window], dtype=dtype)
    wide = problem.changed(Tensor.float)
    narrow, exact = evaluate(problem), evaluate(wide)
    for name in ("out0", "d_x"):
        spacing = torch.finfo(dtype).eps * exact[name].abs()
        assert ((narrow[name].float() - exact[name]).abs() <= 0.5 * spacing + 1e-5).all(), name


def test_a_scalar_is_a_triple_and_half_the_kernel_the_padding() -> None:
    problem = make_depthwise((5, 6, 7), BLOCK, stride=(2, 2, 2), padding=(1, 1, 1))
    expected = evaluate(problem)
    for padding in (1, None, [1, 1, 1]):
        problem.settings |= {"stride": 2, "padding": padding}
        assert_same(evaluate(problem), expected)


def test_the_result_is_contiguous() -> None:
    problem = make_depthwise(GRID, BLOCK).of_clips(behind_cls)
    (out,) = native(problem)
    assert out.is_contiguous()
    assert out.device.type == DEVICE.type
