import pytest
import torch

from vtfast.visual import viridis


def test_colours_are_those_of_matplotlib() -> None:
    matplotlib = pytest.importorskip("matplotlib")
    values = torch.linspace(0, 1, 256)
    expected = torch.tensor(matplotlib.colormaps["viridis"](values.tolist()))[:, :3]
    assert (viridis(values) - expected).abs().max() < 6 / 255


def test_lightness_rises_and_what_is_beyond_is_cut() -> None:
    lightness = viridis(torch.linspace(0, 1, 100)) @ torch.tensor([0.2126, 0.7152, 0.0722])
    assert (lightness.diff() > 0).all()
    ends = viridis(torch.tensor([[-1.0, 0.0], [1.0, 2.0]]))
    assert ends.shape == (2, 2, 3)
    assert torch.equal(ends[:, 0], ends[:, 1])
