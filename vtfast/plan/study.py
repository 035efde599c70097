"""Predictions of the usual models over frames and GPUs: a scaling study on paper."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vtfast.models import model_config
from vtfast.plan.machines import gpu
from vtfast.plan.planning import plan

__all__ = ["PREDICTED", "Row", "scaling_study"]

# What goes with every prediction for a GPU.
PREDICTED = "predicted; no GPU has run it"

_MODELS = ("swin3d_t", "timesformer_base", "mvit_v2_s", "uniformer_s")
_FRAMES = (8, 32, 128)
_GPUS = ("a100-80gb", "h100-sxm", "h200", "b200")


@dataclass(frozen=True)
class Row:
    """One model on clips of one length on one GPU. Everything is predicted.

    Args:
        model: name in the registry.
        frames: of a clip.
        size: height and width, as published.
        batch: clips.
        dtype: of weights and clips.
        gpu: its name.
        inference_seconds: of a forward.
        training_seconds: of forward, loss and backward.
        inference_bound: what most of the forward's time goes to.
        training_bound: the same of the training step.
        inference_bytes: of memory, in all.
        training_bytes: the same of the training step.
        fits: whether the training step fits in the GPU's memory.
    """

    model: str
    frames: int
    size: int
    batch: int
    dtype: str
    gpu: str
    inference_seconds: float
    training_seconds: float
    inference_bound: str
    training_bound: str
    inference_bytes: float
    training_bytes: float
    fits: bool


def scaling_study(
    models: Iterable[str] = _MODELS,
    frames: Sequence[int] = _FRAMES,
    gpus: Sequence[str] = _GPUS,
    *,
    batch: int = 8,
    dtype: str = "bfloat16",
) -> list[Row]:
    """Predicts every model on every length and GPU, at its published size; some seconds a model.

    Raises:
        ValueError: a model or GPU is not known, or a model refuses a length.
        RuntimeError: this installation has no compiled kernels.
    """
    rows = []
    for model in models:
        size = model_config(model).preprocessing.crop
        for length in frames:
            for name in gpus:
                found = plan(model, (batch, 3, length, size, size), gpu(name), dtype=dtype)
                forward, step = found.inference, found.training
                rows.append(
                    Row(
                        model, length, size, batch, dtype, name, forward.seconds, step.seconds, forward.bound,
                        step.bound, forward.memory_held, step.memory_held, step.fits,
                    )
                )  # fmt: skip
    return rows
