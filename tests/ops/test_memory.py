"""Memory beyond inputs and results, measured as the peak of a process that does nothing else."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.requires_native

MEASURE = """
import resource, torch
from vtfast import ops, use_backend

def peak_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

def step(grid, channels, **settings):
    tokens = grid[0] * grid[1] * grid[2]
    qkv = torch.randn(1, tokens, 3 * channels, requires_grad=True)
    with use_backend("native"):
        out = ops.grid_attention(qkv, grid, **settings)
    out.backward(out.detach())

torch.set_num_threads(2)
step((2, 7, 7), 32, num_heads=1, block=(2, 7, 7))  # starts threads, loads libraries
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
