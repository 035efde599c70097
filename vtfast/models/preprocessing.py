"""How the clips that a model was trained on were sampled, resized, cropped and normalised."""

from dataclasses import dataclass

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "Preprocessing"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocessing:
    """The published pre-processing of one model.

    Args:
        mean: per RGB channel, subtracted from pixels scaled to [0, 1].
        std: per RGB channel, divided by after the subtraction.
        short_side: pixels that the shorter side of a frame is resized to.
        crop: side in pixels of the square that is cut out after the resize.
        frames: frames of one clip.
        stride: distance between two frames of a clip, in frames of the source.
        antialias: whether the resize filters before it shrinks.
        interpolation: of the resize, a `mode` of `torch.nn.functional.interpolate`.
    """

    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    short_side: int = 256
    crop: int = 224
    frames: int = 32
    stride: int = 2
    antialias: bool = False
    interpolation: str = "bilinear"
