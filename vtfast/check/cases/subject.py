"""An operation with its problems, numbered: first the fixed ones, then those drawn from a seed."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

import torch

from vtfast.check.problems.problem import Problem, Triple

Settings = dict[str, Any]


@dataclass(frozen=True)
class Subject:
    """An operation of `vtfast.ops` and what it is checked on.

    Args:
        name: in `vtfast.ops`.
        make: makes a problem of settings.
        fixed: the settings of the first cases.
        draw: settings of further ones, from a generator and what a head_dim has to be a multiple of.
        nan: whether NaN is put into the inputs under these settings, or into which of them. Not into those of
            which the operation may leave out what the reference multiplies by zero.
        any_threads: whether the number of threads may not change a bit under these settings.
    """

    name: str
    make: Callable[..., Problem]
    fixed: tuple[Settings, ...]
    draw: Callable[[Random, int], Settings]
    nan: Callable[[Settings], bool | tuple[str, ...]] = lambda settings: True
    any_threads: Callable[[Settings], bool] = lambda settings: True

    def settings(self, case: int, seed: int, device: torch.device) -> Settings:
        """The settings of a case; the seed matters to those that are drawn."""
        if case < len(self.fixed):
            return self.fixed[case]
        # The kernels for GPUs take head_dim in multiples of 8; the rest is asked for now and then.
        random = Random(f"{seed}/{self.name}/{case}")
        step = 8 if device.type == "cuda" and random.random() < 0.9 else 1
        return self.draw(random, step)

    def problem(self, case: int, seed: int, dtype: torch.dtype, device: torch.device) -> Problem:
        """The problem of a case, with tensors that depend on the seed."""
        settings = self.settings(case, seed, device)
        return self.make(**settings, dtype=dtype, device=device, seed=Random(f"{seed}/{case}").getrandbits(32))


def choice(random: Random, *values: Any) -> Any:
    """One of some values."""
    return values[random.randrange(len(values))]


def draw_grid(random: Random, most: int = 300) -> Triple:
    """A grid of at most so many tokens, small and odd sizes among them."""
    while True:
        grid = random.randint(1, 6), random.randint(1, 13), random.randint(1, 17)
        if grid[0] * grid[1] * grid[2] <= most:
            return grid


def draw_up_to(random: Random, largest: Triple) -> Triple:
    """Three sizes from 1 to those given."""
    t, h, w = (random.randint(1, size) for size in largest)
    return t, h, w


def draw_heads(random: Random, step: int, largest: int = 72) -> Settings:
    """Number of heads and their size, which is a multiple of `step`."""
    head_dim = step * random.randint(1, largest // step)
    return {"num_heads": random.randint(1, 4), "head_dim": head_dim, "batch": random.randint(1, 3)}


def maybe(random: Random, share: float, **settings: Any) -> Settings:
    """The settings, in a share of all cases."""
    return settings if random.random() < share else {}
