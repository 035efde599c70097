import pytest
import torch

from vtfast.visual import Scale, overlay, viridis


@pytest.mark.parametrize("token", [(0, 0, 0), (1, 2, 5), (2, 3, 0)])
def test_a_token_colours_its_own_patch_of_its_own_frame(token: tuple[int, int, int]) -> None:
    values = torch.zeros(3, 4, 6)
    values[token] = 1
    shown = overlay(torch.zeros(3, 36, 54, 3, dtype=torch.uint8), values, Scale(0, 1), opacity=1.0)
    dark, bright = (255 * viridis(torch.tensor([0.0, 1.0]))).round().to(torch.uint8)
    frame, row, column = token
    assert torch.equal(shown[frame, 9 * row + 4, 9 * column + 4], bright)  # the middle of the patch
    is_bright = shown.sum(dim=-1) == bright.sum()
    times, ys, xs = is_bright.nonzero().T
    assert {(t, y // 9, x // 9) for t, y, x in zip(times.tolist(), ys.tolist(), xs.tolist(), strict=True)} == {token}
    for other in range(3):
        if other != frame:
            assert (shown[other] == dark).all()


def test_frames_are_grey_under_half_transparent_colours() -> None:
    frames = torch.tensor([[200, 30, 30], [30, 180, 40]], dtype=torch.uint8).view(1, 1, 2, 3)
    shown = overlay(frames, torch.full((1, 1, 1), 3.0), Scale(3, 5), opacity=0.25)
    grey = torch.tensor([0.299 * 200 + 0.587 * 30 + 0.114 * 30, 0.299 * 30 + 0.587 * 180 + 0.114 * 40])
    expected = 0.75 * grey[:, None] + 0.25 * 255 * viridis(torch.tensor(0.0))
    assert (shown[0, 0] - expected).abs().max() <= 1


def test_a_scale_spans_the_values_and_never_blows_up_rounding() -> None:
    assert Scale.of(torch.tensor([0.5, 2.0, 1.0])) == Scale(0.5, 2.0)
    flat = Scale.of(torch.tensor([1.0, 1.0 + 1e-6]))
    assert flat.high - flat.low == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("frames", "values", "message"),
    [
        (torch.zeros(2, 4, 4, 3), torch.zeros(2, 2, 2), "frames must be uint8"),
        (torch.zeros(2, 4, 4, 3, dtype=torch.uint8), torch.zeros(3, 2, 2), r"values must be \(2, H', W'\)"),
        (torch.zeros(2, 4, 4, 3, dtype=torch.uint8), torch.zeros(2, 4), r"values must be \(2, H', W'\)"),
    ],
)
def test_bad_arguments(frames: torch.Tensor, values: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        overlay(frames, values, Scale(0, 1))
