import pytest
from planted_results import record, result, results

from vtfast.bench.results import Results
from vtfast.report.sources import Machine

HOSTILE = "<script>alert(1)</script> | $x$ `y` & [z](http://example.org)"


def planted() -> Results:
    """Of everything a little: a right result, a wrong one, a slow one, sweeps, memory, and a hostile name."""
    right = [result("eager", 0.04), result("SDPA", 0.02, sdpa="flash_attention"), result("vtfast", 0.01)]
    return results(
        record(*right, exps=10**6),
        record(*right, name="stage 2", shape="grid=8x28x28", exps=10**9),
        record(result("eager", 0.01), result("vtfast", 0.02), subject="depthwise_conv3d"),
        record(result("eager", 0.04), result("vtfast", 1e-6, agrees=False), subject="rotary_embedding"),
        record(result("eager", 0.04, agrees=False), result("vtfast", 0.01), subject="joint_attention", name=HOSTILE),
        record(
            result("eager", 0.4, peak_bytes=2**30), result("vtfast", 0.1, peak_bytes=2**28), result("copy", 0.1, None),
            subject="swin3d_t", kind="model", name="1 x 3 x 16 x 224 x 224", shape="clip=1x3x16x224x224",
        ),
        *(
            record(
                result("eager", 0.01 * frames**2, peak_bytes=frames * 2**21),
                result("vtfast", 0.01 * frames, peak_bytes=frames * 2**20),
                subject="time_attention", shape=f"grid={frames}x14x14", sweep="frames", at=frames,
            )
            for frames in (4, 8, 16)
        ),
        *(
            record(result("vtfast", 0.1 / count**0.5), shape="grid=8x56x56", sweep="threads", at=count, threads=count)
            for count in (1, 4)
        ),
    )  # fmt: skip


@pytest.fixture(scope="session")
def machine() -> Machine:
    """The planted machine."""
    return Machine("Planted", planted())
