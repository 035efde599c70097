"""Which implementation answers, and that every instruction set's build passes the same comparison."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from target import DEVICE

import vtfast
from vtfast import _library, ops, reference

TESTS = Path(__file__).parents[1]

# Every code path once: whole and ragged tiles and panels, padding, seams, prefix, mask, in each dtype.
PARITY = """
import torch
import kernel_check
import rotary_check
from attention_check import DTYPES, check, make_problem
from depthwise_check import make_depthwise
from pooling_attention_check import make_pooling_attention
from pooling_check import MODES, Pool, make_pool_qkv, make_pool_tokens
torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)
open_keys = torch.rand(2, 5 * 6 * 7, generator=torch.Generator().manual_seed(0)) > 0.3
for dtype in DTYPES:
    for size in (1, 2, 3, 7, 8, 15, 16, 17, 31, 33, 49, 64, 79):
        check(make_problem((1, 1, size), (1, 1, size), dtype=dtype, batch=1, num_heads=1, head_dim=size))
    for queries in ("none", "global", "mean"):
        prefix = {"num_prefix": 2, "prefix_queries": queries}
        check(make_problem((5, 6, 7), (2, 4, 4), shift=(1, 2, 2), dtype=dtype, key_mask=open_keys, **prefix))
        check(make_problem((5, 6, 7), (3, 3, 2), dilation=(1, 2, 2), head_dim=33, dtype=dtype, **prefix))
        check(make_problem((5, 6, 7), (3, 3, 2), dilation=(1, 2, 2), pad_keys=False, dtype=dtype, **prefix))
        for frames in (1, 7, 8, 20, 45):
            check(make_problem((frames, 1, 3), (frames, 1, 1), bias=False, head_dim=40, dtype=dtype, **prefix))
    check(make_problem((8, 7, 8), (8, 7, 7), shift=(4, 3, 3), dtype=dtype, head_dim=32, batch=1))
    check(make_problem((2, 5, 6), (2, 3, 4), dtype=dtype, logits=100.0))
    for head_dim, rotated in ((64, 64), (33, 32), (24, 20), (5, 4)):
        rotary_check.check(rotary_check.make_problem(head_dim=head_dim, rotated=rotated, dtype=dtype))
    for mode in MODES:
        for head_dim in (8, 33, 96):
            for kernel, stride in (((3, 3, 3), (1, 1, 1)), ((3, 3, 3), (1, 2, 2)), ((2, 5, 4), (2, 4, 1))):
                pool = Pool(kernel, stride, mode)
                kernel_check.check(make_pool_tokens((3, 6, 7), pool, head_dim=head_dim, dtype=dtype))
    pools = (Pool((3, 3, 3)), Pool((3, 3, 3), (1, 2, 2), norm=False), None)
    kernel_check.check(make_pool_qkv((3, 6, 7), pools, head_dim=40, dtype=dtype))
    for grids in (((2, 5, 7), (2, 5, 7)), ((2, 8, 8), (2, 4, 2)), ((1, 3, 2), (3, 7, 11)), ((1, 1, 40), (1, 2, 17))):
        for head_dim in (8, 33, 96):
            problem = make_pooling_attention(*grids, head_dim=head_dim, residual=True, dtype=dtype)
            kernel_check.check(problem)
    for kernel in ((3, 3, 3), (5, 5, 5), (3, 1, 1), (1, 3, 3), (2, 5, 4)):
        for channels in (7, 40):
            for stride in ((1, 1, 1), (1, 2, 2)):
                kernel_check.check(make_depthwise((3, 6, 17), kernel, stride=stride, channels=channels, dtype=dtype))
    kernel_check.check(make_depthwise((3, 6, 7), (3, 3, 3), bias=False, residual=True, channels=33, dtype=dtype))
x = torch.linspace(-80, 80, 999)
torch.testing.assert_close(torch.ops.vtfast.repeated_exp(x, 3), 3 * x.exp())
from vtfast import _library
print(_library.cpu_instruction_set)
"""


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs `code` in a process of its own, with this environment and no other setting of ours."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("VTFAST_", "ATEN_"))}
    path = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(
        [sys.executable, "-c", code],
        env=clean | {"PYTHONPATH": path} | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.requires_native
@pytest.mark.parametrize("name", ["avx2", "avx512", "avx512_bf16", "amx"])
def test_every_instruction_set_agrees_with_the_reference(name: str) -> None:
    if not _library.build_info()["cpu_supported"][name]:
        pytest.skip(f"this processor has no {name}")
    result = run(PARITY, VTFAST_CPU_CAPABILITY=name)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == [name]


CALL = """
import torch, vtfast
qkv = torch.randn(1, 2, 4, 4, 24)
out = vtfast.ops.grid_attention(qkv, (2, 4, 4), num_heads=2, block=(2, 2, 2))
"""


def test_native_without_a_library_is_an_error_that_gives_the_reason() -> None:
    result = run(CALL, ATEN_CPU_CAPABILITY="default", VTFAST_BACKEND="native")
    assert result.returncode != 0
    assert "RuntimeError: no compiled kernel for grid_attention: torch's CPU capability is DEFAULT" in result.stderr


def test_reference_asked_for_by_name_needs_no_library_and_no_warning() -> None:
    result = run(CALL, ATEN_CPU_CAPABILITY="default", VTFAST_BACKEND="reference")
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""


def test_the_environment_names_the_backend() -> None:
    code = "import vtfast._backend; print(vtfast._backend.current_backend())"
    assert run(code, VTFAST_BACKEND="reference").stdout.strip() == "reference"
    assert run(code).stdout.strip() == "auto"


def test_an_unknown_backend_in_the_environment_is_an_error() -> None:
    result = run("import vtfast", VTFAST_BACKEND="fast")
    assert result.returncode != 0
    assert "ValueError: VTFAST_BACKEND must be one of auto, native, reference, got 'fast'" in result.stderr


def test_an_unknown_backend_is_an_error() -> None:
    with (
        pytest.raises(ValueError, match="backend must be one of auto, native, reference, got 'cuda'"),
        vtfast.use_backend("cuda"),
    ):
        pass


@pytest.mark.every_device
@pytest.mark.requires_native
def test_backends_are_chosen_within_a_context(monkeypatch: pytest.MonkeyPatch) -> None:
    qkv, calls = torch.randn(1, 2, 4, 4, 48, device=DEVICE), []
    plain = reference.grid_attention

    def counting(*args: object, **kwargs: object) -> torch.Tensor:
        calls.append(vtfast._backend.current_backend())
        return plain(*args, **kwargs)

    monkeypatch.setattr(reference, "grid_attention", counting)

    def call() -> None:
        ops.grid_attention(qkv, (2, 4, 4), num_heads=2, block=(2, 2, 2))

    call()
    with vtfast.use_backend("reference"):
        call()
        with vtfast.use_backend("native"):
            call()
        call()
    call()
    assert calls == ["reference", "reference"]


def test_a_context_left_by_an_error_restores_the_backend() -> None:
    before = vtfast._backend.current_backend()
    with pytest.raises(ZeroDivisionError), vtfast.use_backend("reference"):
        raise ZeroDivisionError
    assert vtfast._backend.current_backend() == before


WITHOUT_DATA: dict[str, Callable[[torch.Tensor], torch.Tensor | tuple[torch.Tensor, ...]]] = {
    "depthwise_conv3d": lambda x: ops.depthwise_conv3d(x.view(1, 2, 4, 4, 24), x.new_empty(24, 1, 3, 3, 3)).flatten(
        1, 3
    ),
    "grid_attention": lambda x: ops.grid_attention(x, (2, 4, 4), num_heads=2, block=(2, 2, 2)),
    "pool_tokens": lambda x: ops.pool_tokens(x, (2, 4, 4), kernel=3, mode="max"),
    "pool_qkv": lambda x: ops.pool_qkv(x, (2, 4, 4), num_heads=2, k=reference.TokenPool((2, 2, 2), mode="avg")),
    "pooling_attention": lambda x: ops.pooling_attention(x, x, x, (2, 4, 4), (2, 4, 4), num_heads=2),
}


@pytest.mark.parametrize("name", WITHOUT_DATA)
def test_a_device_without_kernels(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vtfast._backend, "_warned", set())  # each reason is said once a process
    x = torch.empty(1, 32, 24, device="meta")
    with vtfast.use_backend("native"), pytest.raises(RuntimeError, match=f"{name}: device meta has no kernel"):
        WITHOUT_DATA[name](x)
    with pytest.warns(UserWarning, match=f"{name}: device meta has no kernel.*The reference answers"):
        results = WITHOUT_DATA[name](x)
    first = results if isinstance(results, torch.Tensor) else results[0]
    assert (first.device.type, first.shape[:2]) == ("meta", (1, 32))
