"""Video files: decoding, sampling of clips and pre-processing. Decoding needs the extra `video`."""

from vtfast.data.clips import iter_clips, load_clips
from vtfast.data.decode import VideoError, VideoReader
from vtfast.data.preprocess import ClipSettings, preprocess
from vtfast.data.sampling import clip_indices

__all__ = ["ClipSettings", "VideoError", "VideoReader", "clip_indices", "iter_clips", "load_clips", "preprocess"]
