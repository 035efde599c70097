"""Problems of pooling attention on DEVICE."""

from functools import partial

from target import DEVICE

from vtfast.check.problems import pooling_attention
from vtfast.check.problems.problem import Triple

__all__ = ["Triple", "make_pooling_attention"]

make_pooling_attention = partial(pooling_attention.make_pooling_attention, device=DEVICE)
