"""Which frames of a video make up its clips."""

__all__ = ["clip_indices"]


def clip_indices(num_frames: int, *, frames: int, stride: int, views: int = 1) -> list[list[int]]:
    """Spreads `views` clips evenly over a video, as the published test protocols do.

    A clip spans `(frames - 1) * stride + 1` frames of the source. One view is the middle clip; with more, the first
    starts at the first frame, the last ends at the last one, and the starts between are evenly spaced. A video that is
    shorter than a clip is played again from its beginning. Both rules are those of mmaction2's `SampleFrames` in test
    mode; SlowFast spreads the views the same way (`USE_OFFSET_SAMPLING`), but repeats the last frame of a short video.

    Args:
        num_frames: frames of the video.
        frames: frames of one clip.
        stride: distance between two frames of a clip, in frames of the source.
        views: number of clips.

    Returns:
        For each view, the `frames` indices of its frames.
    """
    for name, value in (("num_frames", num_frames), ("frames", frames), ("stride", stride), ("views", views)):
        if value < 1:
            raise ValueError(f"{name} must be a positive int, got {value}")
    slack = max(num_frames - (frames - 1) * stride - 1, 0)
    starts = [slack // 2] if views == 1 else [round(view * slack / (views - 1)) for view in range(views)]
    return [[(start + step * stride) % num_frames for step in range(frames)] for start in starts]
