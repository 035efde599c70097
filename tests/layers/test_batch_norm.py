from typing import Any

import pytest
import torch
from torch import nn

from vtfast.layers.batch_norm import batch_norm, fold_into_next, fold_into_previous, frozen_statistics


def trained_norm(**options: Any) -> nn.BatchNorm3d:
    """With statistics, and parameters, far from zero and one."""
    norm = nn.BatchNorm3d(6, **options).double()
    if norm.affine:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    if norm.running_mean is not None:
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.1, 2.0)
    return norm.eval()


@pytest.mark.parametrize("training", [False, True])
def test_is_that_of_volumes(training: bool) -> None:
    norm, other = (trained_norm().train(training) for _ in range(2))
    other.load_state_dict(norm.state_dict())
    x = torch.randn(2, 3, 4, 5, 6, dtype=torch.float64)
    out = batch_norm(x, norm)
    torch.testing.assert_close(out, other(x.permute(0, 4, 1, 2, 3).contiguous()).permute(0, 2, 3, 4, 1))
    torch.testing.assert_close(norm.state_dict(), other.state_dict())
    assert out.is_contiguous()


@pytest.mark.parametrize("options", [{}, {"affine": False}], ids=["affine", "plain"])
@pytest.mark.parametrize("bias", [True, False])
def test_folding(options: dict[str, Any], bias: bool) -> None:
    norm = trained_norm(**options)
    x = torch.randn(2, 6, 3, 4, 5, dtype=torch.float64)
    linear = nn.Linear(6, 4, bias=bias).double()
    expected = linear(norm(x).movedim(1, -1))
    assert isinstance(fold_into_next(norm, linear), nn.Identity)
    torch.testing.assert_close(linear(x.movedim(1, -1)), expected)
    conv = nn.Conv3d(6, 6, 3, padding=1, bias=bias).double()
    expected = norm(conv(x))
    assert isinstance(fold_into_previous(conv, norm), nn.Identity)
    torch.testing.assert_close(conv(x), expected)


def test_folds_nothing_but_batch_normalisation() -> None:
    linear = nn.Linear(6, 4)
    weight, kept = linear.weight, nn.Identity()
    assert fold_into_next(kept, linear) is kept
    assert linear.weight is weight
    with pytest.raises(ValueError, match="without running statistics cannot be folded"):
        fold_into_next(trained_norm(track_running_stats=False), linear)


@pytest.mark.parametrize("momentum", [0.1, None])
def test_frozen_statistics(momentum: float | None) -> None:
    norm = trained_norm(momentum=momentum).train()
    x = torch.randn(2, 3, 4, 5, 6, dtype=torch.float64)
    batch_norm(x, norm)
    before = {name: buffer.clone() for name, buffer in norm.named_buffers()}
    with frozen_statistics(norm):
        out = batch_norm(x, norm)
    torch.testing.assert_close(dict(norm.named_buffers()), before, rtol=0, atol=0)
    torch.testing.assert_close(out, batch_norm(x, norm))
