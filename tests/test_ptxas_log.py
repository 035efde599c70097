import pytest
from ptxas_log import Kernel, parse, table

CLEAN = """\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_ZN6vtfast4cuda4copyEPf' for 'sm_80'
ptxas info    : Function properties for _ZN6vtfast4cuda4copyEPf
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 8 registers, used 1 barriers, 512 bytes smem, 376 bytes cmem[0]
ptxas info    : Compile time = 7.265 ms
"""

SPILLING = """\
ptxas info    : Compiling entry function '_ZN6vtfast4cuda4scanEPf' for 'sm_90'
ptxas info    : Function properties for _ZN6vtfast4cuda4scanEPf
    80 bytes stack frame, 104 bytes spill stores, 180 bytes spill loads
ptxas info    : Used 255 registers, used 1 barriers
"""

CALLING = """\
ptxas info    : Compiling entry function '_ZN6vtfast4cuda4scanEPf' for 'sm_90'
ptxas info    : Function properties for _ZN6vtfast4cuda4scanEPf
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers
ptxas info    : Function properties for _ZN6vtfast4cuda4calledEPf
    16 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
"""


def test_resources_of_a_kernel() -> None:
    assert parse(CLEAN) == [Kernel("_ZN6vtfast4cuda4copyEPf", "sm_80", registers=8, shared=512)]
    assert parse(SPILLING) == [Kernel("_ZN6vtfast4cuda4scanEPf", "sm_90", registers=255, stack=80, spilled=284)]
    assert parse("nvcc warning : nothing of ptxas") == []


@pytest.mark.parametrize(("log", "fits"), [(CLEAN, [True]), (CLEAN + SPILLING, [True, False]), (CALLING, [False])])
def test_spills_and_stacks_are_seen(log: str, fits: list[bool]) -> None:
    assert [kernel.fits_registers for kernel in parse(log)] == fits


def test_the_table_lists_what_spills_first() -> None:
    rows = table(parse(CLEAN + SPILLING)).splitlines()[2:]
    assert rows[0].startswith("| 255 | 0 | 80 | 284 | sm_90 | ")
    assert "scan" in rows[0]
    assert rows[1].startswith("| 8 | 512 | 0 | 0 | sm_80 | ")
