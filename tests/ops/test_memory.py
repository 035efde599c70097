"""Memory beyond inputs and results, measured as the peak of a process that does nothing else."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.requires_native

MEASURE = """
import resource, torch
from vtfast import ops, reference, use_backend

def peak_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

def step(grid, channels, **settings):
    tokens = grid[0] * grid[1] * grid[2]
    qkv = torch.randn(1, tokens, 3 * channels, requires_grad=True)
    with use_backend("native"):
        out = ops.grid_attention(qkv, grid, **settings)
    out.backward(out.detach())

def pooling(grid, kv_stride, channels, num_heads):
    def tokens(sizes):
        return torch.randn(1, 1 + sizes[0] * sizes[1] * sizes[2], channels, requires_grad=True)

    head_dim, kernel = channels // num_heads, (3, 3, 3)
    norm = [torch.ones(head_dim, requires_grad=True), torch.zeros(head_dim, requires_grad=True)]
    weight = torch.zeros(head_dim, 1, *kernel, requires_grad=True)
    k_grid = reference.pooled_grid(grid, kernel, (1, kv_stride, kv_stride))
    tables = [torch.zeros(2 * size - 1, head_dim, requires_grad=True) for size in grid]
    named = dict(zip(("rel_pos_t", "rel_pos_h", "rel_pos_w"), tables))
    with use_backend("native"):
        q, k = (
            ops.pool_tokens(
                tokens(grid), grid, kernel=kernel, stride=(1, stride, stride), weight=weight, norm_weight=norm[0],
                norm_bias=norm[1], num_heads=num_heads, num_prefix=1,
            )
            for stride in (1, kv_stride)
        )
        out = ops.pooling_attention(
            q, k, k, grid, k_grid, num_heads=num_heads, num_prefix=1, residual=True, **named
        )
    out.backward(out.detach())

def convolution(grid, channels, volume=False):
    t, h, w = grid
    if volume:
        x = torch.randn(1, channels, t, h, w).to(memory_format=torch.channels_last_3d).permute(0, 2, 3, 4, 1)
    else:
        x = torch.randn(1, t, 1 + h * w, channels)[:, :, 1:].unflatten(2, (h, w))
    weight, bias = torch.zeros(channels, 1, 3, 3, 3, requires_grad=True), torch.zeros(channels, requires_grad=True)
    x.requires_grad_()
    with use_backend("native"):
        out = ops.depthwise_conv3d(x, weight, bias, residual=True)
    return torch.autograd.grad(out, [x, weight, bias], out.detach())

torch.set_num_threads(2)
step((2, 7, 7), 32, num_heads=1, block=(2, 7, 7))
pooling((2, 7, 7), 2, 32, 1)  # starts threads, loads libraries
convolution((2, 7, 7), 32)
before = peak_mib()
{call}
print(peak_mib() - before)
"""


def peak_of(call: str) -> float:
    """Mebibytes that the peak of a process grows by."""
    code = MEASURE.format(call=call)
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, env=os.environ, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    return float(result.stdout)


def test_attention_among_all_tokens_holds_no_square_of_them() -> None:
    """The scores of 8192 tokens alone would be 256 MiB; qkv, out and d_qkv are 3.5 MiB."""
    assert peak_of("step((8, 32, 32), 16, num_heads=1, block=(8, 32, 32))") < 40


def test_a_stage_of_video_swin_needs_little_beyond_its_inputs_and_results() -> None:
    """qkv, d_qkv, out and its gradient are 73 MiB for 8 x 56 x 56 tokens; the scores of 3 heads would be 113 MiB."""
    table = "torch.zeros(15 * 13 * 13, 3, requires_grad=True)"
    call = f"step((8, 56, 56), 96, num_heads=3, block=(8, 7, 7), shift=(4, 3, 3), bias_table={table})"
    assert peak_of(call) < 1.3 * 73


def test_the_bias_of_a_large_plane_is_not_laid_out_pair_by_pair() -> None:
    """4096 tokens of one frame have 64 MiB of pairs, and a table of 63 KiB."""
    table = "torch.zeros(127 * 127, 1, requires_grad=True)"
    assert peak_of(f"step((1, 64, 64), 16, num_heads=1, block=(1, 64, 64), bias_table={table})") < 30


def test_pooled_queries_on_pooled_keys_hold_no_scores() -> None:
    """6,272 queries on as many keys would be 150 MiB of scores; x, q, k, out and gradients are 17 MiB."""
    assert peak_of("pooling((8, 28, 28), 1, 64, 1)") < 40


def test_the_first_block_of_mvit_needs_little_beyond_its_inputs_and_results() -> None:
    """Two inputs, q, out, and the gradients of all four are 77 MiB; 25,089 queries on 393 keys are 38 MiB of scores."""
    assert peak_of("pooling((8, 56, 56), 8, 96, 1)") < 1.3 * 77


@pytest.mark.parametrize("volume", [False, True], ids=["behind-cls", "channels-last-volume"])
def test_a_convolution_copies_no_tokens(volume: bool) -> None:
    """Input, result and gradient of the input are 147 MiB; in another layout each would be there twice."""
    assert peak_of(f"convolution((16, 56, 56), 256, volume={volume})") < 1.1 * 147
