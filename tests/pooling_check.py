"""Problems of token pooling on DEVICE."""

from functools import partial

from target import DEVICE

from vtfast.check.problems import pooling
from vtfast.check.problems.pooling import MODES, Pool
from vtfast.check.problems.problem import Triple

__all__ = ["MODES", "Pool", "Triple", "make_pool_qkv", "make_pool_tokens"]

make_pool_qkv = partial(pooling.make_pool_qkv, device=DEVICE)
make_pool_tokens = partial(pooling.make_pool_tokens, device=DEVICE)
