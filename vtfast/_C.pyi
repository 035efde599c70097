from collections.abc import Sequence
from typing import Any

def build_info() -> dict[str, Any]: ...
def processor_features() -> dict[str, bool]: ...
def processor_vendor() -> str: ...
def device_of_arch(arch: int) -> tuple[int, int, int, int]: ...
def grid_attention_launch_plan(
    *,
    device: tuple[int, int, int, int],
    backward: bool,
    data_type: int,
    batch: int,
    head_dim: int,
    bias: bool,
    grid: Sequence[int],
    num_heads: int,
    block: Sequence[int],
    dilation: Sequence[int],
    shift: Sequence[int],
    bias_window: Sequence[int],
    num_prefix: int,
    prefix_keys: bool,
    prefix_queries: int,
) -> tuple[dict[str, Any] | None, str | None]: ...
