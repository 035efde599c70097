"""Cases of depthwise convolution."""

from random import Random

from vtfast.check.cases.subject import Settings, Subject, choice, draw_grid, draw_up_to, maybe
from vtfast.check.problems.depthwise_conv3d import make_depthwise


def _draw(random: Random, step: int) -> Settings:
    grid, channels = draw_grid(random), step * random.randint(1, 80 // step)
    settings: Settings = {"grid": grid, "channels": channels, "batch": random.randint(1, 3)}
    settings["bias"] = random.random() < 0.7
    if random.random() < 0.5:
        kernel = choice(random, (3, 3, 3), (5, 5, 5), (3, 1, 1), (1, 3, 3), (1, 1, 1))
        return settings | {"kernel": kernel, "residual": random.random() < 0.7}
    kernel = draw_up_to(random, (5, 7, 7))
    # Any padding with which the kernel fits, up to whole windows of zeros.
    least = [max(0, -(-(k - size) // 2)) for k, size in zip(kernel, grid, strict=True)]
    settings |= {"kernel": kernel, "padding": tuple(size + random.randint(0, 3) for size in least)}
    return settings | maybe(random, 0.6, stride=draw_up_to(random, (2, 3, 4)))


SUBJECTS = (
    Subject(
        "depthwise_conv3d",
        make_depthwise,
        (
            {"grid": (3, 5, 7), "kernel": (3, 3, 3), "residual": True, "channels": 24},
            {"grid": (4, 6, 7), "kernel": (5, 5, 5), "residual": True, "channels": 33},
            {"grid": (3, 8, 9), "kernel": (1, 3, 3), "stride": (1, 2, 2), "bias": False, "channels": 16},
            {"grid": (5, 3, 4), "kernel": (3, 1, 1), "residual": True, "channels": 7},
            {"grid": (2, 5, 6), "kernel": (2, 4, 3), "stride": (2, 3, 1), "padding": (3, 2, 4), "channels": 40},
        ),
        _draw,
        # Taps that no token lies under may be left out.
        lambda settings: ("x", "bias"),
    ),
)
