"""Where the features of many videos go: one file for all, or a folder with one file each."""

from pathlib import Path
from types import TracebackType

from torch import Tensor

from vtfast.cli.errors import UserError
from vtfast.data.encode import whole_file

__all__ = ["FeatureFile", "FeatureFolder", "open_features"]


class FeatureFile:
    """One .safetensors file; it is written when the block ends, also by an error or an interrupt.

    Args:
        path: the file, replaced if it exists.
        settings: how the features were made, kept as metadata.
    """

    def __init__(self, path: Path, settings: dict[str, str]) -> None:
        if not path.parent.is_dir():
            raise UserError(f"--features: {path.parent} is not a folder")
        self._path = path
        self._settings = settings
        self._features: dict[str, Tensor] = {}

    def __enter__(self) -> "FeatureFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._features:
            _save(self._path, self._features, self._settings)

    def has(self, name: str) -> bool:
        """Whether the features of a video are there from an earlier run: never."""
        return False

    def add(self, name: str, features: Tensor) -> None:
        """Keeps the features of a video."""
        self._features[name] = features


class FeatureFolder:
    """A folder with one .safetensors file a video, written at once, so that an interrupted run can be taken up again.

    Args:
        path: the folder, made if it is missing.
        settings: how the features were made, kept as metadata.
    """

    def __init__(self, path: Path, settings: dict[str, str]) -> None:
        if path.exists() and not path.is_dir():
            raise UserError(f"--features: {path} must be a folder or end in .safetensors")
        self._path = path
        self._settings = settings

    def __enter__(self) -> "FeatureFolder":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass

    def has(self, name: str) -> bool:
        """Whether the features of a video are there from an earlier run.

        Raises:
            UserError: they are, but made with other settings.
        """
        from safetensors import SafetensorError, safe_open

        path = self._file(name)
        if not path.exists():
            return False
        try:
            with safe_open(path, framework="pt") as file:
                settings = file.metadata() or {}
        except SafetensorError as error:
            raise UserError(f"--features: {path}: {error}") from error
        for key, value in self._settings.items():
            if settings.get(key) != value:
                raise UserError(f"--features: {path} was made with {key} {settings.get(key)}, this run has {value}")
        return True

    def add(self, name: str, features: Tensor) -> None:
        """Writes the features of a video."""
        path = self._file(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        _save(path, {name: features}, self._settings)

    def _file(self, name: str) -> Path:
        return self._path / f"{name}.safetensors"


def open_features(path: Path, settings: dict[str, str]) -> FeatureFile | FeatureFolder:
    """A file if `path` ends in .safetensors, a folder otherwise.

    Raises:
        UserError: it cannot be written, or safetensors is not installed.
    """
    try:
        import safetensors  # noqa: F401
    except ImportError as error:
        raise UserError("--features needs safetensors: pip install 'vtfast[safetensors]'") from error
    return (FeatureFile if path.suffix == ".safetensors" else FeatureFolder)(path, settings)


def _save(path: Path, features: dict[str, Tensor], settings: dict[str, str]) -> None:
    from safetensors.torch import save_file

    # A reader never meets half a file, nor does a run that is taken up again.
    with whole_file(path) as partial:
        save_file(features, partial, metadata=settings)
