"""Problems of divided attention and of its schemes by name."""

from typing import Any

import torch

from vtfast import ops
from vtfast.check.problems.grid_attention import attention_terms, make_grid_attention
from vtfast.check.problems.problem import Operation, Problem, Triple, on_backend


def make_divided_attention(
    name: str,
    grid: Triple,
    *,
    scheme: str | None = None,
    axis: str | None = None,
    semantics: str = "official",
    num_prefix: int = 0,
    open_frames: float | None = None,
    rotated: int | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    seed: int = 0,
    **settings: Any,
) -> Problem:
    """Normal q, k, v and gradient for the operation `name` of `vtfast.ops`.

    `open_frames` is the share of frames that a mask leaves open, `rotated` the number of channels of a head that tables
    of true angles turn.
    """
    chosen = {key: settings.pop(key) for key in ("scale",) if key in settings}
    along = scheme or axis or name.removesuffix("_attention")
    queries = "none" if along == "time" and semantics == "official" else "mean"
    made = make_grid_attention(
        grid, grid, bias=False, pad=False, num_prefix=num_prefix, prefix_queries=queries, dtype=dtype, device=device,
        seed=seed, **settings,
    )  # fmt: skip
    chosen |= {"grid": grid, "semantics": semantics, "num_prefix": num_prefix, "num_heads": made.settings["num_heads"]}
    chosen |= {key: value for key, value in (("scheme", scheme), ("axis", axis)) if value is not None}
    generator = torch.Generator().manual_seed(seed + 1)
    if rotated is not None:
        angles = torch.randn(grid[0], 1, 1, rotated // 2, generator=generator).repeat_interleave(2, dim=-1)
        chosen["rotary"] = (angles.cos().to(device), angles.sin().to(device))
    if open_frames is not None:
        mask = torch.rand(made.tokens.shape[0], grid[0], generator=generator) < open_frames
        chosen["frame_mask"] = mask.to(device)
    return Problem(OPERATIONS[name], made.leaves, chosen, made.grads_out, made.head_dim)


def _operation(name: str) -> Operation:
    function = getattr(ops, name)
    reference = on_backend(function, "reference")
    return Operation(name, function, reference, attention_terms, ("qkv",), largest_head_dim=128)


OPERATIONS = {
    name: _operation(name)
    for name in (
        "divided_attention",
        "time_attention",
        "space_attention",
        "joint_attention",
        "axial_attention",
        "sparse_local_attention",
        "sparse_global_attention",
    )
}
