"""How a CUDA kernel would be laid out on a GPU: the compiled library's own plan, made without a GPU."""

from collections.abc import Sequence
from typing import Any

import torch

from vtfast import _library
from vtfast.ops._arguments import FLOAT_TYPES, triple
from vtfast.ops.grid_attention import PREFIX_QUERIES, check_groups

__all__ = ["launch_plan"]

_DIRECTIONS = ("forward", "backward")


def launch_plan(
    op: str = "grid_attention",
    *,
    batch: int,
    grid: int | Sequence[int],
    num_heads: int,
    head_dim: int,
    block: int | Sequence[int],
    dilation: int | Sequence[int] = 1,
    shift: int | Sequence[int] = 0,
    bias: bool = False,
    bias_window: int | Sequence[int] | None = None,
    num_prefix: int = 0,
    prefix_keys: bool = True,
    prefix_queries: str = "none",
    dtype: torch.dtype = torch.bfloat16,
    direction: str = "forward",
    arch: int | str | torch.device = 90,
) -> dict[str, Any]:
    """Tiles, thread blocks and shared memory that an operation takes for given sizes.

    Thread blocks are bound to a head and walk over items. An item is `units` units, or one set of rows of a unit; a
    unit is one group, or several that share a tile of 16 rows.

    Args:
        op: the operation; so far "grid_attention".
        batch: number of clips.
        grid: size of the token grid, as in `ops.grid_attention`; likewise what is not explained here.
        num_heads: number of attention heads.
        head_dim: channels of a head.
        block: tokens of a group along each axis.
        dilation: distance between neighbours of a group.
        shift: how far the grid is rolled.
        bias: whether there is a bias table.
        bias_window: the window that the table is made for; `block` if None.
        num_prefix: tokens before those of the grid.
        prefix_keys: whether every group attends to the prefix.
        prefix_queries: whether the prefix attends, "none", "global" or "mean".
        dtype: of qkv.
        direction: "forward" or "backward".
        arch: the GPU's compute capability as an int (80 for 8.0), planned for the largest GPU that has it, or a device
            of this machine.

    Returns:
        A dict with `padded_dim` (head_dim, rounded up to one that is compiled), `groups_per_unit`, `unit_rows` (tokens
        and filling of a unit), `units` and `rows` (of an item), `row_sets` (items that share a unit), `chunk` (columns
        in shared memory at once), `chunks` (of a unit), `warps` (of a thread block), `stages` (2: one chunk is loaded
        while another is computed on), `items` and `workers` (thread blocks) of a head, `table_resident` and
        `grads_resident` (bias table and its gradient in shared memory) and `shared_bytes` (of a thread block).

    Raises:
        ValueError, TypeError: an argument is wrong, or no kernel takes these sizes; the message names the argument.
        RuntimeError: vtfast was installed without its compiled extension.
    """
    _check_choice(op, "op", ("grid_attention",))
    _check_choice(direction, "direction", _DIRECTIONS)
    _check_choice(prefix_queries, "prefix_queries", PREFIX_QUERIES)
    for name, value, least in (
        ("batch", batch, 0), ("num_heads", num_heads, 1), ("head_dim", head_dim, 1), ("num_prefix", num_prefix, 0),
    ):  # fmt: skip
        _check_count(value, name, least)
    if dtype not in FLOAT_TYPES:
        raise TypeError(f"dtype must be one of {', '.join(map(str, FLOAT_TYPES))}, got {dtype}")
    grid, block = triple(grid, "grid", 1), triple(block, "block", 1)
    dilation, shift = triple(dilation, "dilation", 1), triple(shift, "shift", 0)
    window = block if bias_window is None else triple(bias_window, "bias_window", 1)
    check_groups(block, dilation, shift, window)
    extension = _library.extension()
    plan, reason = extension.grid_attention_launch_plan(
        device=_device(arch),
        backward=direction == "backward",
        data_type=FLOAT_TYPES.index(dtype),
        batch=batch,
        head_dim=head_dim,
        bias=bias,
        grid=grid,
        num_heads=num_heads,
        block=block,
        dilation=dilation,
        shift=shift,
        bias_window=window,
        num_prefix=num_prefix,
        prefix_keys=prefix_keys,
        prefix_queries=PREFIX_QUERIES.index(prefix_queries),
    )
    if plan is None:
        raise ValueError(f"no CUDA kernel of {op} takes these sizes: {reason}")
    return plan


def _check_choice(value: str, name: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


def _check_count(value: int, name: str, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be an int of at least {least}, got {value!r}")


def _device(arch: int | str | torch.device) -> tuple[int, int, int, int]:
    """What a plan depends on of a GPU: architecture, multiprocessors, shared memory of a block and of each of them."""
    if isinstance(arch, int):
        if isinstance(arch, bool) or arch < 80:
            raise ValueError(f"arch must be at least 80 (compute capability 8.0), got {arch!r}")
        return _library.extension().device_of_arch(arch)
    if torch.device(arch).type != "cuda":
        raise ValueError(f"arch must be an int like 90 or a CUDA device, got {arch!r}")
    gpu = torch.cuda.get_device_properties(arch)
    return (
        10 * gpu.major + gpu.minor,
        gpu.multi_processor_count,
        gpu.shared_memory_per_block_optin,  # type: ignore[attr-defined]
        gpu.shared_memory_per_multiprocessor,
    )
