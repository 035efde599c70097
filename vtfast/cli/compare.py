"""The compiled kernels against the reference: same features, how much faster, in how much less memory."""

import json
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from vtfast import build_info, use_backend
from vtfast.bench.peak_memory import peak_memory
from vtfast.cli.clips import Clip
from vtfast.cli.errors import as_user_error
from vtfast.cli.options import LoadedModel
from vtfast.cli.progress import Progress
from vtfast.data import VideoError, load_clips

__all__ = ["TOLERANCES", "Comparison", "compare", "compare_clips"]

# Largest difference allowed, as a share of the largest feature. Both sides round every layer to the dtype, in another
# order, so the two may differ by a small multiple of the dtype's resolution that grows with the depth of the model.
TOLERANCES = {"float64": 1e-10, "float32": 1e-4, "float16": 2e-2, "bfloat16": 1e-1}


@dataclass(frozen=True)
class Cost:
    """What one way of running a model costs.

    Args:
        seconds: median time of a run.
        peak_bytes: memory at the peak beyond weights and input, None if the system cannot tell.
    """

    seconds: float
    peak_bytes: int | None


@dataclass(frozen=True)
class Comparison:
    """One clip through the compiled kernels and through the reference.

    Args:
        shape: of the features.
        difference: largest absolute difference of a feature.
        relative: that, as a share of the largest feature.
        tolerance: what `relative` may be.
        compiled: cost with the compiled kernels.
        reference: cost with the reference.
    """

    shape: tuple[int, ...]
    difference: float
    relative: float
    tolerance: float
    compiled: Cost
    reference: Cost

    @property
    def agrees(self) -> bool:
        """Whether the difference is within the tolerance; never, if a feature is not finite."""
        return self.relative <= self.tolerance

    @property
    def speedup(self) -> float:
        """How many times faster the compiled kernels are."""
        return self.reference.seconds / self.compiled.seconds


def compare(
    model: LoadedModel,
    clip: Tensor,  # [B, 3, T, H, W]
    runs: int = 5,
) -> Comparison:
    """Runs the backbone both ways.

    Times are medians of `runs` runs, the two ways in turn, so that a change of the machine's clock or load meets both.

    Raises:
        RuntimeError: no compiled kernel supports this model and clip; the message says why.
    """
    ways = {"native": _runner(model, clip, "native"), "reference": _runner(model, clip, "reference")}
    features = {name: way() for name, way in ways.items()}  # warms both up as well
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(runs):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            times[name].append(time.perf_counter() - start)
    costs = {name: Cost(statistics.median(times[name]), peak_memory(way, model.device)) for name, way in ways.items()}
    difference = _largest(features["native"].double() - features["reference"].double())
    scale = _largest(features["reference"])
    return Comparison(
        shape=tuple(features["native"].shape),
        difference=difference,
        relative=difference / scale if scale else difference,
        tolerance=TOLERANCES[model.dtype_name],
        compiled=costs["native"],
        reference=costs["reference"],
    )


def compare_clips(model: LoadedModel, clips: Sequence[Clip], *, runs: int, as_json: bool) -> int:
    """Compares on the middle clip of each video and prints the result; 1 if a video failed or disagreed."""
    status = 0
    with Progress(len(clips), "video") as progress:
        for clip in clips:
            try:
                with as_user_error(ImportError):
                    inputs = load_clips(clip.path, model.preprocessing).to(model.device, model.dtype)
            except VideoError as error:
                progress.print(f"vtfast: error: {error}", error=True)
                status = 1
                continue
            with as_user_error(RuntimeError, ValueError):
                result = compare(model, inputs, runs)
            progress.print(_as_json(clip, model, result) if as_json else _as_text(clip, model, inputs, result))
            progress.advance()
            if not result.agrees:
                status = 1
    return status


def _runner(
    model: LoadedModel,
    clip: Tensor,  # [B, 3, T, H, W]
    backend: str,
) -> Callable[[], Tensor]:
    def run() -> Tensor:
        with torch.inference_mode(), use_backend(backend):
            features: Tensor = model.module.forward_features(clip)  # type: ignore[operator]
        if clip.is_cuda:
            torch.cuda.synchronize(clip.device)
        return features

    return run


def _largest(x: Tensor) -> float:
    """Largest absolute value; NaN if there is one, which compares as out of any tolerance."""
    return float(x.abs().max()) if x.isfinite().all() else math.nan


def _as_json(clip: Clip, model: LoadedModel, result: Comparison) -> str:
    return json.dumps(
        {
            "video": str(clip.path),
            "model": model.name,
            "dtype": model.dtype_name,
            "device": model.device.type,
            "threads": torch.get_num_threads(),
            "instruction_set": build_info()["cpu_instruction_set"],
            **asdict(result),
            "speedup": result.speedup,
            "agrees": result.agrees,
        }
    )


def _as_text(
    clip: Clip,
    model: LoadedModel,
    inputs: Tensor,  # [B, 3, T, H, W]
    result: Comparison,
) -> str:
    compiled, reference = result.compiled, result.reference
    threads = torch.get_num_threads()
    where = f"cpu, {threads} thread{'s' * (threads > 1)}" if model.device.type == "cpu" else _gpu_name(model.device)
    kernels = build_info()["cpu_instruction_set"] if model.device.type == "cpu" else "cuda"
    memory, saving = "not available on this system", ""
    if compiled.peak_bytes is not None and reference.peak_bytes is not None:
        memory = f"{_mib(compiled.peak_bytes)}  {_mib(reference.peak_bytes)}"
        saving = f"   {reference.peak_bytes / max(compiled.peak_bytes, 1):.2f} x less"
    verdict = "agrees" if result.agrees else "DIFFERS"
    lines = (
        ("clip", f"{clip.name}, {_shape(inputs.shape)}"),
        ("model", f"{model.name}, {model.dtype_name}, {where}"),
        ("features", _shape(result.shape)),
        ("", f"{'compiled':>12}  {'reference':>12}"),
        ("kernels", f"{kernels:>12}  {'PyTorch':>12}"),
        ("time", f"{_ms(compiled.seconds)}  {_ms(reference.seconds)}   {result.speedup:.2f} x faster"),
        ("peak memory", memory + saving),
        ("difference", f"{result.difference:.2e} at most, {result.relative:.2e} of the largest feature"),
        ("verdict", f"{verdict} (allowed in {model.dtype_name}: {result.tolerance:.0e} of the largest feature)"),
    )
    return "\n".join(f"{name:<12}  {text}" for name, text in lines)


def _gpu_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device)


def _shape(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:>9.1f} ms"


def _mib(size: int) -> str:
    return f"{size / 2**20:>8.1f} MiB"
