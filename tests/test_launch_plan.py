"""The plan of a launch, made without a GPU: everything is covered once, and it fits the GPU."""

import random
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import vtfast
from vtfast import _library
from vtfast.ops.grid_attention import _reasons_against

pytestmark = pytest.mark.skipif(_library.build_info().get("compiler") is None, reason="nothing was compiled")

ARCHS = [80, 86, 89, 90, 100, 120]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
WINDOW = {"batch": 4, "grid": (8, 56, 56), "num_heads": 3, "head_dim": 32, "block": (8, 7, 7)}


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def random_settings(rng: random.Random) -> dict[str, Any]:
    """Sizes from a single token to long sequences, every kind of group."""
    block = tuple(rng.choice([1, 2, 3, 4, 7, 8, 14, 16, 32]) for _ in range(3))
    dilation = tuple(rng.choice([1, 1, 1, 2]) for _ in range(3))
    return {
        "batch": rng.choice([1, 2, 8, 64, 1000]),
        "grid": tuple(
            rng.choice([1, b, b * d, b * d + 1, 3 * b * d, 56]) for b, d in zip(block, dilation, strict=True)
        ),
        "num_heads": rng.choice([1, 3, 4, 12, 32]),
        "head_dim": rng.choice(range(8, 129, 8)),
        "block": block,
        "dilation": dilation,
        "shift": tuple(rng.randrange(b * d) for b, d in zip(block, dilation, strict=True)),
        "bias": rng.random() < 0.5,
        "num_prefix": rng.choice([0, 0, 1, 5]),
        "prefix_keys": rng.random() < 0.7,
        "prefix_queries": rng.choice(["none", "global", "mean"]),
    }


def entries_of_group(settings: dict[str, Any]) -> int:
    """Tokens that a thread block handles for a group: its slots, and the prefix where it takes part."""
    t, h, w = settings["block"]
    takes_part = settings.get("prefix_keys", True) or settings.get("prefix_queries", "none") != "none"
    return t * h * w + (settings.get("num_prefix", 0) if takes_part else 0)


def num_groups(settings: dict[str, Any]) -> int:
    count = settings["batch"]
    for size, b, d in zip(settings["grid"], settings["block"], settings.get("dilation", (1, 1, 1)), strict=True):
        count *= ceil_div(size, b * d) * d
    return count


def check_plan(plan: dict[str, Any], settings: dict[str, Any], arch: int, direction: str) -> None:
    _, num_sms, shared_per_block, shared_per_sm = _library.extension().device_of_arch(arch)
    # A unit is whole groups and their filling, and groups share one only within a tile.
    tokens = plan["groups_per_unit"] * entries_of_group(settings)
    assert plan["unit_rows"] % 16 == 0
    assert 0 <= plan["unit_rows"] - tokens < 16
    assert plan["groups_per_unit"] == 1 or plan["unit_rows"] == 16
    assert settings["head_dim"] <= plan["padded_dim"] <= 128
    # Rows and columns of a unit are covered, and no set or chunk of them is empty.
    assert (plan["row_sets"] - 1) * plan["rows"] < plan["units"] * plan["unit_rows"] <= plan["row_sets"] * plan["rows"]
    assert plan["row_sets"] == 1 or plan["units"] == 1
    assert (plan["chunks"] - 1) * plan["chunk"] < plan["unit_rows"] <= plan["chunks"] * plan["chunk"]
    # Items are all units, each in as many items as it has sets of rows.
    units = ceil_div(num_groups(settings), plan["groups_per_unit"])
    assert plan["items"] == ceil_div(units, plan["units"]) * plan["row_sets"]
    # Work for every thread block, every warp, and a place for all of them at once: none waits for another to end.
    assert 1 <= plan["workers"] <= plan["items"]
    assert 1 <= plan["warps"] <= 8
    assert 16 * plan["warps"] <= ceil_div(plan["rows"], 16) * 16
    assert plan["stages"] in (1, 2)
    assert 0 < plan["shared_bytes"] <= shared_per_block
    at_once = num_sms * (shared_per_sm // (plan["shared_bytes"] + 1024))
    assert plan["workers"] == 1 or plan["workers"] * settings["num_heads"] <= at_once
    assert settings["bias"] or not plan["table_resident"]
    assert (settings["bias"] and direction == "backward") or not plan["grads_resident"]


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_a_plan_covers_everything_and_fits(arch: int, dtype: torch.dtype, direction: str) -> None:
    rng = random.Random(f"{arch} {dtype} {direction}")
    for _ in range(300):
        settings = random_settings(rng)
        plan = None
        try:
            plan = vtfast.launch_plan(**settings, dtype=dtype, direction=direction, arch=arch)
            check_plan(plan, settings, arch, direction)
        except (AssertionError, RuntimeError) as error:
            raise AssertionError(f"{settings}\n{plan}\n{error}") from None


@pytest.mark.parametrize("head_dim", range(8, 129, 8))
def test_every_head_dim_has_a_plan(head_dim: int) -> None:
    settings = WINDOW | {"head_dim": head_dim, "bias": True}
    for direction in ("forward", "backward"):
        check_plan(vtfast.launch_plan(**settings, direction=direction), settings, 90, direction)


@pytest.mark.parametrize(("block", "groups"), [((1, 1, 1), 3), ((1, 1, 5), 3), ((8, 1, 1), 2), ((3, 3, 1), 1)])
def test_short_groups_share_a_tile(block: tuple[int, int, int], groups: int) -> None:
    assert vtfast.launch_plan(**WINDOW | {"block": block})["groups_per_unit"] == groups


def test_the_usual_windows_keep_a_group_and_its_table_in_shared_memory() -> None:
    for block in ((8, 7, 7), (2, 7, 7), (1, 7, 7), (16, 1, 1)):
        plan = vtfast.launch_plan(**WINDOW | {"block": block}, bias=True)
        assert plan["row_sets"] == plan["chunks"] == 1
        assert plan["table_resident"]


def test_a_group_too_long_for_shared_memory_is_cut() -> None:
    settings = WINDOW | {"grid": (8, 28, 28), "block": (8, 28, 28), "head_dim": 128, "bias": True}
    for arch in ARCHS:
        for direction in ("forward", "backward"):
            plan = vtfast.launch_plan(**settings, dtype=torch.float32, direction=direction, arch=arch)
            check_plan(plan, settings, arch, direction)
            assert plan["row_sets"] > 1
            assert plan["chunks"] > 1


def test_an_empty_batch_has_no_items() -> None:
    assert vtfast.launch_plan(**WINDOW | {"batch": 0})["items"] == 0


def test_a_plan_depends_on_nothing_but_its_arguments() -> None:
    assert vtfast.launch_plan(**WINDOW) == vtfast.launch_plan(**WINDOW)
    assert vtfast.launch_plan(**WINDOW, arch=90) == vtfast.launch_plan(**WINDOW)


@pytest.mark.requires_cuda
@pytest.mark.every_device
def test_a_plan_for_the_gpu_at_hand() -> None:
    settings = WINDOW | {"bias": True}
    gpu = torch.cuda.get_device_properties("cuda")
    for direction in ("forward", "backward"):
        plan = vtfast.launch_plan(**settings, direction=direction, arch="cuda")
        assert plan["workers"] * settings["num_heads"] <= 8 * gpu.multi_processor_count
        assert plan["shared_bytes"] <= gpu.shared_memory_per_block_optin


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"op": "pool"}, "op must be one of grid_attention, got 'pool'"),
        ({"direction": "sideways"}, "direction must be one of forward, backward, got 'sideways'"),
        ({"prefix_queries": "some"}, "prefix_queries must be one of none, global, mean, got 'some'"),
        ({"batch": -1}, "batch must be an int of at least 0, got -1"),
        ({"num_heads": 0}, "num_heads must be an int of at least 1, got 0"),
        ({"head_dim": True}, "head_dim must be an int of at least 1, got True"),
        ({"head_dim": 20}, "no CUDA kernel of grid_attention takes these sizes: head_dim must be a multiple of 8"),
        ({"dtype": torch.float64}, "no CUDA kernel of grid_attention takes these sizes: float64 has no kernel on CUDA"),
        ({"shift": 56}, "shift must be smaller than block .* along T, got 56"),
        ({"bias_window": (8, 7, 6)}, "bias_window must be at least block = 7 along W, got 6"),
        ({"arch": 75}, r"arch must be at least 80 \(compute capability 8.0\), got 75"),
        ({"arch": "cpu"}, "arch must be an int like 90 or a CUDA device, got 'cpu'"),
    ],
)
def test_bad_input(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        vtfast.launch_plan(**WINDOW | changes)


def test_a_dtype_that_is_none() -> None:
    with pytest.raises(TypeError, match=r"dtype must be one of .*, got torch.int8"):
        vtfast.launch_plan(**WINDOW, dtype=torch.int8)


@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64], ids=str)
def test_the_operation_refuses_what_the_kernels_refuse(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python says it for torch.compile's sake, C++ for memory's: in the same words, for the same inputs."""
    monkeypatch.setattr(_library, "why_unavailable", lambda device: None)
    for head_dim in range(1, 145):
        qkv = SimpleNamespace(device=torch.device("cuda", 0), dtype=dtype, shape=(1, 8, 3 * head_dim))
        reasons = _reasons_against(qkv, 1)
        try:
            vtfast.launch_plan(**WINDOW | {"head_dim": head_dim}, dtype=dtype)
        except ValueError as error:
            said = str(error).removeprefix("no CUDA kernel of grid_attention takes these sizes: ")
            assert any(reason.startswith(said) for reason in reasons), (head_dim, said, reasons)
        else:
            assert reasons == [], head_dim
