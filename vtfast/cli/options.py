"""Options of the commands that run a model, and the model they describe."""

import argparse
import contextlib
import dataclasses
import sys
from pathlib import Path

import torch
from torch import nn

from vtfast import use_backend
from vtfast._backend import BACKENDS
from vtfast.cli.errors import UserError, as_user_error
from vtfast.models import Preprocessing, create_model, model_config

__all__ = [
    "LoadedModel",
    "add_backend_option",
    "add_model_options",
    "backend",
    "load_model",
    "note_random_weights",
    "positive_int",
]

_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}


@dataclasses.dataclass(frozen=True)
class LoadedModel:
    """A model ready for inference.

    Args:
        name: in the registry.
        module: the model, in evaluation mode, on its device and in its dtype.
        preprocessing: how its clips are made, the published way or as the options say.
        device: of the model.
        dtype: of the model.
        checkpoint: file of its weights, None for random ones.
    """

    name: str
    module: nn.Module
    preprocessing: Preprocessing
    device: torch.device
    dtype: torch.dtype
    checkpoint: Path | None

    @property
    def num_classes(self) -> int:
        """Classes of the head."""
        return int(self.module.num_classes)  # type: ignore[arg-type]

    @property
    def dtype_name(self) -> str:
        """The dtype as the command line spells it."""
        return str(self.dtype).removeprefix("torch.")


def positive_int(text: str) -> int:
    """An argparse type."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return value


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Adds what says which model runs where, and on what clips."""
    model = parser.add_argument_group("model")
    model.add_argument("--model", default="swin3d_t", metavar="NAME", help="see `vtfast models` (default: %(default)s)")
    model.add_argument(
        "--checkpoint", type=Path, metavar="FILE", help="weights (.pth, .pyth, .safetensors) of any known upstream"
    )
    model.add_argument(
        "--num-classes", type=positive_int, metavar="N", help="classes of the head (default: as published)"
    )
    clip = parser.add_argument_group("clips (default: as published with the model)")
    clip.add_argument("--frames", type=positive_int, metavar="N", help="frames of a clip")
    clip.add_argument("--stride", type=positive_int, metavar="N", help="source frames from one clip frame to the next")
    clip.add_argument(
        "--size",
        type=positive_int,
        metavar="PIXELS",
        help="side of the square crop; the resize before it changes in proportion",
    )
    where = parser.add_argument_group("execution")
    where.add_argument("--dtype", choices=_DTYPES, default="float32", help="of weights and clips (default: float32)")
    where.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where the model runs (default: cpu)")
    where.add_argument("--threads", type=positive_int, metavar="N", help="CPU threads (default: torch's own choice)")


def add_backend_option(parser: argparse.ArgumentParser) -> None:
    """Adds `--backend`."""
    parser.add_argument(
        "--backend",
        choices=BACKENDS,
        help="auto: compiled kernels where they exist; native: nothing else; reference: plain PyTorch"
        " (default: $VTFAST_BACKEND, or auto)",
    )


def load_model(args: argparse.Namespace, num_classes: int | None = None) -> LoadedModel:
    """The model that the options describe; without a checkpoint its weights are random, the same in every run.

    Args:
        args: the parsed options.
        num_classes: classes of the head if the options do not name them; as published if None.

    Raises:
        UserError: there is no such model, its checkpoint does not fit, or it cannot run on the device.
    """
    if args.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch finds no CUDA device")
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    with as_user_error(ValueError):
        published = model_config(args.model).preprocessing
    with as_user_error(ValueError, TypeError, RuntimeError, OSError, ImportError):
        module = create_model(args.model, num_classes=args.num_classes or num_classes, checkpoint=args.checkpoint)
    device, dtype = torch.device(args.device), _DTYPES[args.dtype]
    module = module.eval().to(device, dtype)
    return LoadedModel(args.model, module, _clip_settings(published, args), device, dtype, args.checkpoint)


def note_random_weights(model: LoadedModel) -> None:
    """Says on stderr that the outputs mean nothing, if they do."""
    if model.checkpoint is None:
        text = "no --checkpoint: the weights are random (seed 0), so classes and features mean nothing"
        print(f"vtfast: note: {text}", file=sys.stderr)


def backend(name: str | None) -> contextlib.AbstractContextManager[None]:
    """Chooses a backend, or leaves the choice to `VTFAST_BACKEND` if None."""
    return contextlib.nullcontext() if name is None else use_backend(name)


def _clip_settings(published: Preprocessing, args: argparse.Namespace) -> Preprocessing:
    changes = {"frames": args.frames, "stride": args.stride, "crop": args.size}
    if args.size is not None:
        changes["short_side"] = round(published.short_side * args.size / published.crop)
    return dataclasses.replace(published, **{name: value for name, value in changes.items() if value is not None})
