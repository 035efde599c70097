"""A kernel that does nothing but exponentials, each waiting for the one before; imported only where there is Triton."""

import torch
import triton
import triton.language as tl

from vtfast.bench.measure import Way

_BLOCK, _REPEATS, _PROGRAMS_PER_SM = 1024, 4096, 64


@triton.jit
def _chains(out, repeats, block: tl.constexpr):
    x = tl.arange(0, block).to(tl.float32) / block
    for _ in range(repeats):
        x = tl.exp2(-x)
    tl.store(out + tl.program_id(0) * block + tl.arange(0, block), x)


def exp() -> Way:
    """`flops` counts the exponentials."""
    programs = _PROGRAMS_PER_SM * torch.cuda.get_device_properties(torch.cuda.current_device()).multi_processor_count
    out = torch.empty(programs * _BLOCK, device="cuda")
    return Way("exp", lambda: _chains[(programs,)](out, _REPEATS, _BLOCK), flops=programs * _BLOCK * _REPEATS)
