"""Cases of token pooling and of pooling attention."""

from random import Random

from vtfast.check.cases.subject import Settings, Subject, choice, draw_grid, draw_heads, draw_up_to, maybe
from vtfast.check.problems.pooling import MODES, Pool, make_pool_qkv, make_pool_tokens
from vtfast.check.problems.pooling_attention import make_pooling_attention
from vtfast.check.problems.problem import Triple

_CUBE = (3, 3, 3)


def _draw_pool(random: Random, grid: Triple) -> Pool:
    # The padding is half the kernel: one that is at most the grid and a half always fits.
    kernel = draw_up_to(random, tuple(min(5, size + 1) for size in grid))  # type: ignore[arg-type]
    stride = draw_up_to(random, (2, 4, 4))
    return Pool(kernel, stride, choice(random, *MODES), random.random() < 0.6)


def _draw_tokens(random: Random, step: int) -> Settings:
    grid = draw_grid(random)
    settings = {"grid": grid, "pool": _draw_pool(random, grid), "num_prefix": choice(random, 0, 1, 2)}
    return settings | draw_heads(random, step, 48) | maybe(random, 0.2, eps=1e-3)


def _draw_qkv(random: Random, step: int) -> Settings:
    grid = draw_grid(random, 200)
    pools = tuple(_draw_pool(random, grid) if random.random() < 0.8 else None for _ in range(3))
    return {"grid": grid, "pools": pools, "num_prefix": choice(random, 0, 1, 2), **draw_heads(random, step, 48)}


def _draw_attention(random: Random, step: int) -> Settings:
    settings: Settings = {"q_grid": draw_grid(random, 150), "k_grid": draw_grid(random, 150)}
    settings |= {"num_prefix": choice(random, 0, 1, 2), "rel_pos": choice(random, "thw", "thw", "hw", "t", "")}
    settings |= draw_heads(random, step) | {"residual": random.random() < 0.5}
    settings |= maybe(random, 0.3, residual_prefix=True) | maybe(random, 0.2, scale=choice(random, 1.0, 0.1))
    return settings | maybe(random, 0.2, logits=5.0)


def _nan(settings: Settings) -> tuple[str, ...]:
    """Not the weight: taps that no token lies under may be left out."""
    return "x", "qkv"


SUBJECTS = (
    Subject(
        "pool_tokens",
        make_pool_tokens,
        (
            {"grid": (3, 5, 7), "pool": Pool(_CUBE, (1, 2, 2)), "head_dim": 24},
            {"grid": (5, 6, 7), "pool": Pool(_CUBE, (1, 2, 2), "max", norm=False), "head_dim": 17},
            {"grid": (3, 5, 6), "pool": Pool((2, 3, 5), (2, 1, 3), "avg"), "num_prefix": 0},
            {"grid": (4, 8, 8), "pool": Pool(_CUBE), "head_dim": 40, "num_heads": 3, "batch": 1},
        ),
        _draw_tokens,
        _nan,
    ),
    Subject(
        "pool_qkv",
        make_pool_qkv,
        (
            {"grid": (3, 5, 7), "pools": (Pool(_CUBE, (1, 2, 2)), Pool(_CUBE, (1, 4, 4)), Pool(_CUBE, (1, 4, 4)))},
            {"grid": (2, 4, 5), "pools": (Pool(_CUBE, norm=False), None, None), "head_dim": 21},
            {"grid": (2, 5, 5), "pools": (None, Pool(_CUBE, (1, 2, 2), "max"), Pool(_CUBE, (1, 2, 2), "avg"))},
        ),
        _draw_qkv,
        _nan,
    ),
    Subject(
        "pooling_attention",
        make_pooling_attention,
        (
            {"q_grid": (3, 5, 6), "k_grid": (3, 2, 3), "residual": True, "head_dim": 24},
            {"q_grid": (2, 3, 2), "k_grid": (3, 5, 7), "residual_prefix": True, "num_prefix": 2, "head_dim": 19},
            {"q_grid": (2, 7, 7), "k_grid": (2, 7, 7), "rel_pos": "hw", "num_prefix": 0, "head_dim": 96, "batch": 1},
            {"q_grid": (1, 1, 40), "k_grid": (1, 2, 17), "rel_pos": "", "logits": 10.0},
        ),
        _draw_attention,
    ),
)
