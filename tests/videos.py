"""Small video files for tests, made with the encoders of PyAV."""

from pathlib import Path

import av
import torch
from torch import Tensor


def numbered_frames(count: int, height: int = 48, width: int = 64) -> Tensor:  # [T, H, W, 3]
    """Frames that each have a grey level of their own, and a bright left upper quarter to tell up from down."""
    frames = torch.empty(count, height, width, 3, dtype=torch.uint8)
    frames[:] = (20 + 200 * torch.arange(count) // count).to(torch.uint8)[:, None, None, None]
    frames[:, : height // 2, : width // 2] = 250
    return frames


def write_video(
    path: Path,
    frames: Tensor,  # [T, H, W, 3]
    *,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    gop: int = 20,
    b_frames: int = 2,
    rotation: int = 0,
) -> Path:
    """Encodes RGB frames at 25 per second; the container follows from the suffix."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options or {})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.gop_size, stream.max_b_frames = gop, b_frames
        if rotation:
            stream.set_display_rotation(rotation)
        for image in frames:
            container.mux(stream.encode(_frame(image)))
        container.mux(stream.encode())
    return path


def decode_all(path: Path) -> list[Tensor]:  # [H, W, 3] each
    """Every frame of a file from its start, through PyAV's own conversion."""
    with av.open(str(path)) as container:
        return [torch.from_numpy(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]


def _frame(image: Tensor) -> av.VideoFrame:  # image [H, W, 3]
    return av.VideoFrame.from_ndarray(image.numpy(), format="rgb24")
