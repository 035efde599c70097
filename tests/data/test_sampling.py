import pytest

from vtfast.data import clip_indices


@pytest.mark.parametrize(
    ("num_frames", "frames", "stride", "views", "expected"),
    [
        pytest.param(10, 3, 2, 1, [[2, 4, 6]], id="middle"),
        pytest.param(10, 3, 2, 2, [[0, 2, 4], [5, 7, 9]], id="both-ends"),
        pytest.param(10, 3, 2, 3, [[0, 2, 4], [2, 4, 6], [5, 7, 9]], id="half-rounds-to-even"),
        pytest.param(11, 3, 2, 4, [[0, 2, 4], [2, 4, 6], [4, 6, 8], [6, 8, 10]], id="evenly-spread"),
        pytest.param(5, 3, 2, 2, [[0, 2, 4], [0, 2, 4]], id="exactly-one-clip"),
        pytest.param(4, 3, 2, 1, [[0, 2, 0]], id="short-starts-again"),
        pytest.param(1, 3, 2, 2, [[0, 0, 0], [0, 0, 0]], id="single-frame"),
        pytest.param(7, 1, 5, 1, [[3]], id="one-frame-clip"),
    ],
)
def test_indices(num_frames: int, frames: int, stride: int, views: int, expected: list[list[int]]) -> None:
    assert clip_indices(num_frames, frames=frames, stride=stride, views=views) == expected


def test_published_test_protocol_of_video_swin() -> None:
    clips = clip_indices(250, frames=32, stride=2, views=4)
    assert [clip[0] for clip in clips] == [0, 62, 125, 187]
    assert [clip[-1] for clip in clips] == [62, 124, 187, 249]


@pytest.mark.parametrize("argument", ["num_frames", "frames", "stride", "views"])
def test_counts_must_be_positive(argument: str) -> None:
    counts = {"num_frames": 10, "frames": 2, "stride": 1, "views": 1} | {argument: 0}
    with pytest.raises(ValueError, match=f"{argument} must be a positive int, got 0"):
        clip_indices(counts.pop("num_frames"), **counts)
