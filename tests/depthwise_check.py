"""Problems of depthwise convolution on DEVICE."""

from functools import partial

from target import DEVICE

from vtfast.check.problems import depthwise_conv3d
from vtfast.check.problems.problem import Triple

__all__ = ["Triple", "make_depthwise"]

make_depthwise = partial(depthwise_conv3d.make_depthwise, device=DEVICE)
