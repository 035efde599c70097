"""Divided attention against groups written down token by token, and against timesformer-pytorch's own module."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from attention_check import Triple, evaluate
from einops import repeat
from plain_divided_attention import HEADS, check_kernels, check_reference, make, native, plain, tables_of
from target import DEVICE, thinned
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

from vtfast import ops

SCHEMES = ("time", "space", "joint", "width", "height", "local", "global")
MASKED_SCHEMES = ("time", "space", "joint")
SEMANTICS = ("official", "lucidrains")
# Grids, and how many tokens come before theirs.
SIZES = [((2, 4, 6), 1), ((3, 5, 7), 0), ((3, 5, 7), 2), ((1, 4, 4), 1), ((5, 1, 3), 0), ((5, 1, 3), 1)]

every_scheme = pytest.mark.parametrize("scheme", SCHEMES)
every_masked_scheme = pytest.mark.parametrize("scheme", MASKED_SCHEMES)
every_semantics = pytest.mark.parametrize("semantics", SEMANTICS)
float32_and_bfloat16 = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])


@pytest.mark.requires_native
@pytest.mark.every_device
@every_scheme
@every_semantics
@float32_and_bfloat16
@pytest.mark.parametrize(("grid", "num_prefix"), thinned(SIZES, ((3, 5, 7), 2)), ids=str)
def test_kernels(grid: Triple, num_prefix: int, dtype: torch.dtype, semantics: str, scheme: str) -> None:
    check_kernels(make(scheme, semantics, grid, num_prefix, dtype=dtype))


@every_scheme
@every_semantics
@pytest.mark.parametrize(
    ("grid", "num_prefix"), [((3, 5, 7), 2), ((5, 1, 3), 0), ((4, 3, 1), 1), ((1, 1, 1), 1)], ids=str
)
def test_reference(grid: Triple, num_prefix: int, semantics: str, scheme: str) -> None:
    check_reference(make(scheme, semantics, grid, num_prefix, dtype=torch.float64))


# Open in part, in one frame, in none.
FRAME_MASK = torch.tensor([[True, False, True, True], [False, False, True, False], [False] * 4])


@pytest.mark.requires_native
@pytest.mark.every_device
@every_masked_scheme
@every_semantics
@float32_and_bfloat16
@pytest.mark.parametrize("num_prefix", thinned([0, 1, 2], 1))
def test_frame_mask_in_kernels(num_prefix: int, dtype: torch.dtype, semantics: str, scheme: str) -> None:
    check_kernels(
        make(scheme, semantics, (4, 3, 2), num_prefix, dtype=dtype, batch=3, frame_mask=FRAME_MASK.to(DEVICE))
    )


@every_masked_scheme
@every_semantics
@pytest.mark.parametrize("num_prefix", [0, 1, 2])
def test_frame_mask_in_the_reference(num_prefix: int, semantics: str, scheme: str) -> None:
    settings = {"batch": 3, "frame_mask": FRAME_MASK, "scale": -0.5}
    check_reference(make(scheme, semantics, (4, 3, 2), num_prefix, dtype=torch.float64, **settings))


TABLES: dict[str, Callable[[], tuple[Tensor, Tensor]]] = {
    "time": lambda: tables_of((4, 1, 1)),
    "space": lambda: tables_of((1, 3, 2)),
    "part": lambda: tables_of((4, 3, 2), rotated=6),
}


@pytest.mark.requires_native
@pytest.mark.every_device
@pytest.mark.parametrize("scheme", thinned(["time", "space", "joint", "global"], "time", "space"))
@every_semantics
@float32_and_bfloat16
@pytest.mark.parametrize("table", thinned(TABLES, "part"))
def test_rotary_in_kernels(table: str, dtype: torch.dtype, semantics: str, scheme: str) -> None:
    check_kernels(make(scheme, semantics, (4, 3, 2), 1, dtype=dtype, rotary=TABLES[table]()))


@every_scheme
@every_semantics
@pytest.mark.parametrize("table", TABLES)
def test_rotary_in_the_reference(table: str, semantics: str, scheme: str) -> None:
    check_reference(make(scheme, semantics, (4, 3, 2), 1, dtype=torch.float64, rotary=TABLES[table]()))


@pytest.mark.requires_native
@every_masked_scheme
@every_semantics
def test_rotary_and_frame_mask_together(semantics: str, scheme: str) -> None:
    settings = {"batch": 3, "frame_mask": FRAME_MASK, "rotary": TABLES["part"](), "scale": 0.3}
    problem = make(scheme, semantics, (4, 3, 2), 2, dtype=torch.float64, **settings)
    check_reference(problem)
    torch.testing.assert_close(evaluate(native, problem), evaluate(plain, problem))


def split(out: Tensor, semantics: str, scheme: str, num_prefix: int, frames: int) -> tuple[Tensor, Tensor]:
    """The result of the prefix, [B, P, C], and of each frame, [B, T, H*W, C]."""
    num_prefix = 0 if scheme == "time" and semantics == "official" else num_prefix
    return out[:, :num_prefix], out[:, num_prefix:].unflatten(1, (frames, -1))


@pytest.mark.requires_native
@pytest.mark.every_device
@every_masked_scheme
@every_semantics
def test_what_masked_frames_hold_does_not_matter(semantics: str, scheme: str) -> None:
    frame_mask = FRAME_MASK.to(DEVICE)
    problem = make(scheme, semantics, (4, 3, 2), 1, batch=3, frame_mask=frame_mask)
    qkv = problem.qkv.clone()
    qkv[:, 1:].unflatten(1, (4, -1))[~frame_mask] *= -30
    outs = [evaluate(native, replace(problem, qkv=x))["out"] for x in (problem.qkv, qkv)]
    (prefix, frames), (other_prefix, other_frames) = (split(out, semantics, scheme, 1, 4) for out in outs)
    assert torch.equal(prefix, other_prefix)
    assert torch.equal(frames[frame_mask], other_frames[frame_mask])


@pytest.mark.requires_native
@pytest.mark.every_device
@every_masked_scheme
@every_semantics
@pytest.mark.parametrize("rotary", [False, True], ids=["", "rotary"])
@pytest.mark.parametrize("kept", thinned([(0,), (0, 1), (1, 3), (0, 2, 3)], (1, 3)), ids=str)
def test_masked_frames_are_as_if_they_were_not_there(
    kept: tuple[int, ...], rotary: bool, semantics: str, scheme: str
) -> None:
    frame_mask = torch.zeros(2, 4, dtype=torch.bool, device=DEVICE)
    frame_mask[:, list(kept)] = True
    tables = tables_of((4, 1, 1)) if rotary else None
    problem = make(scheme, semantics, (4, 3, 2), 1, frame_mask=frame_mask, rotary=tables)
    masked = native(None, qkv=problem.qkv, **problem.settings)

    frames = problem.qkv[:, 1:].unflatten(1, (4, -1))[:, list(kept)].flatten(1, 2)
    problem.settings |= {
        "grid": (len(kept), 3, 2),
        "frame_mask": None,
        "rotary": (tables[0][list(kept)], tables[1][list(kept)]) if tables else None,
    }
    short = native(None, qkv=torch.cat([problem.qkv[:, :1], frames], dim=1), **problem.settings)
    prefix, frames = split(masked, semantics, scheme, 1, 4)
    torch.testing.assert_close(
        (prefix, frames[:, list(kept)]), split(short, semantics, scheme, 1, len(kept)), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("masked", [False, True], ids=["", "masked"])
@pytest.mark.parametrize("rotary", [False, True], ids=["", "rotary"])
@pytest.mark.parametrize("scheme", ["time", "space"])
def test_agrees_with_timesformer_pytorch(scheme: str, rotary: bool, masked: bool) -> None:
    """Without projections, the attention module of the package is this operation."""
    package = pytest.importorskip("timesformer_pytorch.timesformer_pytorch")
    frames, height, width = grid = (4, 3, 2)
    places, head_dim = height * width, 8
    module = package.Attention(HEADS * head_dim, dim_head=head_dim, heads=HEADS).double()
    module.to_qkv = module.to_out = nn.Identity()
    arguments: dict[str, Any] = {"n": places} if scheme == "time" else {"f": frames}
    settings: dict[str, Any] = {}
    if masked:
        settings["frame_mask"] = FRAME_MASK
        arguments["cls_mask"] = repeat(
            F.pad(FRAME_MASK.repeat_interleave(places, dim=1), (1, 0), value=True), "b n -> (b h) 1 n", h=HEADS
        )
        if scheme == "time":
            arguments["mask"] = repeat(F.pad(FRAME_MASK, (1, 0), value=True), "b f -> (b h n) 1 f", h=HEADS, n=places)
    if rotary and scheme == "time":
        arguments["rot_emb"] = package.RotaryEmbedding(head_dim)(frames, "cpu")
    elif rotary:
        arguments["rot_emb"] = package.AxialRotaryEmbedding(head_dim)(height, width, "cpu")
    if rotary:
        size = (frames, 1, 1) if scheme == "time" else (1, height, width)
        sin, cos = (table.view(*size, head_dim) for table in arguments["rot_emb"])
        settings["rotary"] = (cos, sin)
    qkv = torch.randn(3, 1 + frames * places, 3 * HEADS * head_dim, dtype=torch.float64)
    expected = module(qkv, "b (f n) d", "(b n) f d" if scheme == "time" else "(b f) n d", **arguments)
    out = ops.divided_attention(
        qkv, grid, scheme=scheme, num_heads=HEADS, num_prefix=1, semantics="lucidrains", **settings
    )
    torch.testing.assert_close(out, expected)


@every_scheme
def test_five_dimensional_tokens(scheme: str) -> None:
    grid, settings = (3, 5, 2), {"scheme": scheme, "num_heads": HEADS, "rotary": tables_of((3, 1, 1))}
    if scheme in MASKED_SCHEMES:
        settings["frame_mask"] = torch.tensor([[True, True, False], [True, False, True]])
    qkv = torch.randn(2, *grid, 48)
    out = ops.divided_attention(qkv, grid, **settings)
    assert out.shape == (2, *grid, 16)
    assert torch.equal(out.flatten(1, 3), ops.divided_attention(qkv.flatten(1, 3), grid, **settings))


FRONT_DOORS: dict[str, tuple[Callable[..., Tensor], dict[str, str]]] = {
    "time": (ops.time_attention, {}),
    "space": (ops.space_attention, {}),
    "joint": (ops.joint_attention, {}),
    "local": (ops.sparse_local_attention, {}),
    "global": (ops.sparse_global_attention, {}),
    "width": (ops.axial_attention, {"axis": "width"}),
    "height": (ops.axial_attention, {"axis": "height"}),
}


@every_semantics
@pytest.mark.parametrize("scheme", FRONT_DOORS)
def test_front_doors(scheme: str, semantics: str) -> None:
    front_door, axis = FRONT_DOORS[scheme]
    settings = {"num_heads": HEADS, "num_prefix": 1, "semantics": semantics, "scale": 0.3}
    if scheme in MASKED_SCHEMES:
        settings["frame_mask"] = FRAME_MASK
    qkv = torch.randn(3, 25, 48)
    expected = ops.divided_attention(qkv, (4, 3, 2), scheme=scheme, **settings)
    assert torch.equal(front_door(qkv, (4, 3, 2), **axis, **settings), expected)


def test_the_axis_of_time() -> None:
    qkv = torch.randn(3, 24, 48)
    out = ops.axial_attention(qkv, (4, 3, 2), axis="time", num_heads=HEADS)
    assert torch.equal(out, ops.time_attention(qkv, (4, 3, 2), num_heads=HEADS))


@every_semantics
@pytest.mark.parametrize("scheme", ["time", "space"])
@pytest.mark.parametrize("rotary", [False, True], ids=["", "rotary"])
def test_autocast(rotary: bool, scheme: str, semantics: str) -> None:
    tables = tables_of((4, 3, 2)) if rotary else None
    problem = make(scheme, semantics, (4, 3, 2), 1, batch=3, frame_mask=FRAME_MASK, rotary=tables)
    expected = ops.divided_attention(problem.qkv.bfloat16(), **problem.settings)
    with torch.autocast("cpu", torch.bfloat16):
        out = ops.divided_attention(problem.qkv, **problem.settings)
    assert out.dtype == torch.bfloat16
    assert torch.equal(out, expected)


# Each way of calling `grid_attention`: scheme, semantics, masked, rotary.
COMPILED = [
    ("time", "official", True, False),
    ("space", "official", True, False),
    ("space", "lucidrains", True, True),
    ("global", "official", False, False),
]


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize(("scheme", "semantics", "masked", "rotary"), COMPILED)
def test_compiled_once_for_all_sizes(scheme: str, semantics: str, masked: bool, rotary: bool) -> None:
    def attention(qkv: Tensor, frame_mask: Tensor, cos: Tensor, sin: Tensor, grid: Triple) -> Tensor:
        return ops.divided_attention(
            qkv, grid, scheme=scheme, num_heads=HEADS, num_prefix=1, semantics=semantics,
            frame_mask=frame_mask if masked else None, rotary=(cos, sin) if rotary else None,
        )  # fmt: skip

    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(attention, backend=counter, fullgraph=True, dynamic=True)
    for batch, frames, height, width in ((2, 4, 6, 7), (3, 5, 8, 9), (4, 7, 10, 6)):
        qkv = torch.randn(batch, 1 + frames * height * width, 48, requires_grad=True)
        tensors, results = (qkv, torch.rand(batch, frames) > 0.3, *tables_of((1, height, width))), []
        for function in (attention, compiled):
            out = function(*tensors, (frames, height, width))
            results.append((out, *torch.autograd.grad(out.square().sum(), qkv)))
        torch.testing.assert_close(results[1], results[0])
    assert counter.frame_count == 1
