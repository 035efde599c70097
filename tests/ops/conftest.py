from collections.abc import Iterator

import pytest
import torch
from torch._inductor import config as inductor_config


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    # What another build of the operator left in the caches on disk calls it with that build's arguments.
    with inductor_config.patch(force_disable_caches=True):
        yield
    torch.compiler.reset()
