"""Cases of rotary embedding."""

from random import Random

from vtfast.check.cases.subject import Settings, Subject, choice, draw_grid, draw_heads
from vtfast.check.problems.rotary_embedding import make_rotary


def _draw(random: Random, step: int) -> Settings:
    heads = draw_heads(random, step)
    heads["head_dim"] = max(2, heads["head_dim"])
    axes = tuple(random.random() < 0.6 for _ in range(3))
    rotated = 2 * random.randint(1, heads["head_dim"] // 2)
    return {"grid": draw_grid(random), "axes": axes, "rotated": rotated, "num_prefix": choice(random, 0, 1, 2), **heads}


SUBJECTS = (
    Subject(
        "rotary_embedding",
        make_rotary,
        (
            {"grid": (3, 5, 7), "head_dim": 64, "rotated": 64},
            {"grid": (2, 3, 4), "axes": (True, False, False), "head_dim": 24, "rotated": 20, "num_heads": 3},
            {"grid": (2, 3, 5), "axes": (False, True, True), "head_dim": 33, "rotated": 32, "num_prefix": 0},
        ),
        _draw,
    ),
)
