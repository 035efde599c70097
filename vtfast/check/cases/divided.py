"""Cases of divided attention and of its schemes by name."""

from functools import partial
from random import Random

from vtfast.check.cases.subject import Settings, Subject, choice, draw_grid, draw_heads, maybe
from vtfast.check.problems.divided_attention import make_divided_attention

_SCHEMES = ("time", "space", "joint", "width", "height", "local", "global")
_AXES = ("time", "height", "width")
# The schemes that take a mask of frames.
_MASKED = ("time", "space", "joint")


def _draw(name: str, random: Random, step: int) -> Settings:
    settings: Settings = {"grid": draw_grid(random), **draw_heads(random, step)}
    along = name.removesuffix("_attention")
    if name == "divided_attention":
        along = settings["scheme"] = choice(random, *_SCHEMES)
    if name == "axial_attention":
        along = settings["axis"] = choice(random, *_AXES)
    settings |= {"num_prefix": choice(random, 0, 1, 1, 3), "semantics": choice(random, "official", "lucidrains")}
    if along in _MASKED:
        settings |= maybe(random, 0.4, open_frames=choice(random, 0.8, 0.4))
    if settings["head_dim"] > 1:
        settings |= maybe(random, 0.3, rotated=2 * random.randint(1, settings["head_dim"] // 2))
    return settings | maybe(random, 0.2, scale=choice(random, 1.0, -0.5))


def _nan(settings: Settings) -> bool:
    """Masked frames may be left out."""
    return "open_frames" not in settings


def _any_threads(name: str, settings: Settings) -> bool:
    """Not where the prefix goes to torch's scaled_dot_product_attention, which splits keys among threads on CPUs."""
    if settings.get("semantics") != "lucidrains" or not settings.get("num_prefix"):
        return True
    in_frames = "space" in (name.removesuffix("_attention"), settings.get("scheme"))
    return "rotated" not in settings and not (in_frames and "open_frames" in settings)


def _subject(name: str, *fixed: Settings) -> Subject:
    return Subject(
        name,
        partial(make_divided_attention, name),
        fixed,
        partial(_draw, name),
        _nan,
        partial(_any_threads, name),
    )


SUBJECTS = (
    _subject(
        "divided_attention",
        {"scheme": "time", "grid": (5, 3, 4), "num_prefix": 1, "semantics": "lucidrains", "rotated": 8},
        {"scheme": "space", "grid": (3, 5, 5), "num_prefix": 2, "open_frames": 0.6, "head_dim": 20},
        {"scheme": "global", "grid": (3, 5, 7), "num_prefix": 1},
    ),
    _subject(
        "time_attention",
        {"grid": (8, 3, 5), "num_prefix": 1, "head_dim": 64, "batch": 1},
        {"grid": (5, 2, 3), "open_frames": 0.6, "head_dim": 7, "num_prefix": 1},
    ),
    _subject(
        "space_attention",
        {"grid": (2, 7, 7), "num_prefix": 1, "head_dim": 64, "batch": 1},
        {"grid": (3, 4, 5), "num_prefix": 1, "semantics": "lucidrains", "rotated": 6},
    ),
    _subject(
        "joint_attention",
        {"grid": (3, 5, 6), "num_prefix": 1, "head_dim": 32},
        {"grid": (4, 3, 3), "num_prefix": 2, "open_frames": 0.5, "head_dim": 11},
    ),
    _subject(
        "axial_attention",
        {"axis": "width", "grid": (2, 3, 17), "num_prefix": 1},
        {"axis": "height", "grid": (2, 9, 3), "head_dim": 24},
        {"axis": "time", "grid": (5, 2, 3), "num_prefix": 1, "semantics": "lucidrains"},
    ),
    _subject(
        "sparse_local_attention",
        {"grid": (2, 5, 7), "num_prefix": 1},
        {"grid": (3, 4, 4), "semantics": "lucidrains", "num_prefix": 2, "head_dim": 33},
    ),
    _subject(
        "sparse_global_attention",
        {"grid": (3, 5, 7), "num_prefix": 1},
        {"grid": (1, 4, 6), "semantics": "lucidrains", "num_prefix": 1, "head_dim": 12},
    ),
)
