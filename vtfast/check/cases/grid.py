"""Cases of grid attention and of window attention."""

from random import Random

from vtfast.check.cases.subject import Settings, Subject, choice, draw_grid, draw_heads, draw_up_to, maybe
from vtfast.check.problems.grid_attention import make_grid_attention, make_window_attention


def _draw(random: Random, step: int) -> Settings:
    grid = draw_grid(random)
    block = draw_up_to(random, (grid[0] + 1, grid[1] + 2, grid[2] + 2))
    dilation = draw_up_to(random, (2, 3, 3)) if random.random() < 0.4 else (1, 1, 1)
    span = [b * d for b, d in zip(block, dilation, strict=True)]
    settings: Settings = {"grid": grid, "block": block, "dilation": dilation, **draw_heads(random, step)}
    settings["shift"] = tuple(random.randrange(size) if random.random() < 0.5 else 0 for size in span)
    settings |= {"bias": random.random() < 0.6, "pad": random.random() < 0.6, "pad_keys": random.random() < 0.7}
    if settings["bias"] and random.random() < 0.3:
        t, h, w = (b + random.randint(0, 2) for b in block)
        settings |= {"bias_window": (t, h, w), "bias_order": choice(random, "block", "window")}
    if random.random() < 0.6:
        settings |= {"num_prefix": choice(random, 1, 1, 2, 5), "prefix_keys": random.random() < 0.7}
        settings["prefix_queries"] = choice(random, "none", "global", "mean")
    settings |= maybe(random, 0.3, open_keys=choice(random, 0.9, 0.5, 0.1))
    settings |= maybe(random, 0.2, scale=choice(random, 1.0, 0.1, -0.5))
    return settings | maybe(random, 0.2, logits=choice(random, 5.0, 30.0))


def _draw_window(random: Random, step: int) -> Settings:
    window = draw_up_to(random, (4, 7, 7))
    settings: Settings = {"grid": draw_grid(random), "window": window, **draw_heads(random, step)}
    settings["shift"] = tuple(random.randrange(size) if random.random() < 0.6 else 0 for size in window)
    settings |= {"bias": random.random() < 0.8, "pad": random.random() < 0.8}
    settings |= maybe(random, 0.3, shrunk_bias="corrected") | maybe(random, 0.3, open_keys=choice(random, 0.9, 0.3))
    return settings | maybe(random, 0.2, scale=choice(random, 1.0, -0.5))


def _nan(settings: Settings) -> bool | tuple[str, ...]:
    """Masked keys and what queries of padding attend to may be left out."""
    padded = settings.get("pad", True) or not settings.get("pad_keys", True)
    return False if padded or "open_keys" in settings else ("qkv",)


SUBJECTS = (
    Subject(
        "grid_attention",
        make_grid_attention,
        (
            {"grid": (3, 5, 7), "block": (2, 3, 4), "shift": (1, 1, 2), "head_dim": 8},
            {
                "grid": (4, 4, 6),
                "block": (2, 2, 3),
                "num_prefix": 2,
                "prefix_queries": "mean",
                "head_dim": 13,
                "pad": False,
            },
            {"grid": (3, 4, 5), "block": (2, 2, 3), "num_prefix": 1, "prefix_queries": "global", "prefix_keys": False},
            {"grid": (3, 7, 11), "block": (2, 2, 2), "dilation": (1, 2, 3), "shift": (1, 3, 5), "open_keys": 0.5},
            {
                "grid": (3, 5, 7),
                "block": (3, 3, 4),
                "pad_keys": False,
                "bias_window": (3, 4, 5),
                "bias_order": "window",
            },
            {"grid": (1, 1, 67), "block": (1, 1, 67), "head_dim": 64, "batch": 1, "logits": 30.0},
            {"grid": (4, 5, 6), "block": (4, 1, 1), "num_prefix": 1, "bias": False, "pad": False, "head_dim": 40},
        ),
        _draw,
        _nan,
    ),
    Subject(
        "window_attention",
        make_window_attention,
        (
            {"grid": (4, 7, 9), "window": (2, 7, 7), "shift": (1, 3, 3), "head_dim": 32, "batch": 1},
            {"grid": (2, 3, 9), "window": (4, 5, 4), "shift": (2, 2, 1), "head_dim": 8, "pad": False},
            {"grid": (3, 5, 6), "window": (4, 6, 4), "shrunk_bias": "corrected", "head_dim": 17, "num_heads": 3},
            {"grid": (3, 5, 6), "window": (2, 3, 4), "shift": (1, 1, 1), "open_keys": 0.6, "scale": -0.5},
        ),
        _draw_window,
        _nan,
    ),
)
