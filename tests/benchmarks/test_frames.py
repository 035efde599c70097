import math
from pathlib import Path
from typing import Any

import pytest

from benchmarks.frames_picture import curves, draw, exponent


def entry(kind: str, way: str, frames: int, seconds: float | None, agrees: bool | None = True) -> dict[str, Any]:
    timing = None if seconds is None else {"median": seconds, "low": seconds, "high": seconds, "rounds": 3}
    return {"kind": kind, "way": way, "frames": frames, "timing": timing, "agrees": agrees, "peak": frames * 2**20}


def test_the_exponent_of_a_power():
    frames = [8, 16, 32, 96]
    assert exponent(frames, [3e-4 * n**1.75 for n in frames]) == pytest.approx(1.75)
    assert math.isnan(exponent([8], [1.0]))


def test_curves_leave_out_what_is_wrong_or_was_not_measured():
    rows = [
        entry("joint", "vtfast", 16, 2.0),
        entry("joint", "vtfast", 8, 1.0, agrees=None),
        entry("joint", "vtfast", 32, 3.0, agrees=False),
        entry("divided", "SDPA", 8, None),
    ]
    assert curves(rows) == {"joint, vtfast": [rows[1], rows[0]]}


def test_picture(tmp_path: Path):
    pytest.importorskip("matplotlib")
    cores = [
        entry(kind, way, frames, 1e-3 * frames)
        for kind in ("divided", "joint")
        for way in ("SDPA", "vtfast")
        for frames in (8, 16)
    ]
    draw(
        [cores, [entry("divided", "vtfast", frames, frames / 8, agrees=None) for frames in (8, 16)]], tmp_path / "a.png"
    )
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
