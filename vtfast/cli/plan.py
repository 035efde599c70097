"""`vtfast plan`: time, memory and the largest clip of a model on a GPU, predicted."""

import argparse
import json
import sys
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from vtfast.cli.errors import as_user_error
from vtfast.cli.options import positive_int
from vtfast.models import model_config
from vtfast.plan import GPUS, Plan, Step, gpu, plan
from vtfast.plan.comparison import TOLERANCE, Comparison
from vtfast.plan.study import PREDICTED
from vtfast.plan.trace import DTYPES, OPTIMIZERS

__all__ = ["add_command", "run_plan"]

_PARTS = ("weights", "gradients", "optimizer", "clip", "activations", "workspace")


def add_command(commands: Any) -> None:
    """Adds the command to the sub-parsers of `vtfast`."""
    parser = commands.add_parser(
        "plan",
        help="predict time, memory and the largest clip of a model on a GPU",
        description="Predicts a forward and a training step from the operators that they call, on GPUs by their data"
        " sheets. Nothing is computed, and no GPU is needed. The model behind it is checked against measured times of"
        " CPUs: see --validate.",
    )
    parser.add_argument(
        "--model", default="swin3d_t", metavar="NAME", help="see `vtfast models` (default: %(default)s)"
    )
    parser.add_argument("--frames", type=positive_int, metavar="N", help="frames of a clip (default: as published)")
    parser.add_argument("--size", type=positive_int, metavar="PIXELS", help="height and width (default: as published)")
    parser.add_argument("--batch", type=positive_int, default=1, metavar="N", help="clips of each GPU (default: 1)")
    parser.add_argument("--gpu", choices=GPUS, default="h200", metavar="GPU", help=f"one of {', '.join(GPUS)}")
    parser.add_argument("--all-gpus", action="store_true", help="compare all of them, without the largest clips")
    parser.add_argument("--gpus", type=positive_int, default=1, metavar="N", help="data parallel, eight in a machine")
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16", help="default: %(default)s")
    parser.add_argument("--optimizer", choices=OPTIMIZERS, default="none", help="its states and update; default: none")
    parser.add_argument("--checkpointing", action="store_true", help="recompute each block in the backward")
    parser.add_argument(
        "--validate",
        action="store_true",
        help="instead, time operations and models on this CPU beside their predictions; exit status 1 where one is off"
        f" by more than {TOLERANCE:.0%}%",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")
    parser.set_defaults(command=run_plan)


def run_plan(args: argparse.Namespace) -> int:
    """Carries out the command and returns the exit status."""
    if args.validate:
        # Measuring takes the benchmark along, which predicting does without.
        from vtfast.plan.validate import validate

        with as_user_error(RuntimeError):
            return _print_validation(validate(), args.json)
    names = list(GPUS) if args.all_gpus else [args.gpu]
    # A machine's links or the model may refuse; the message says which.
    with as_user_error(ValueError, RuntimeError, TypeError):
        plans = [_plan(args, name) for name in names]
    if args.json:
        for found in plans:
            print(json.dumps(_as_json(found)))
        return 0
    lines = _table(plans) if args.all_gpus else _report(plans[0])
    for line in (_subject(plans[0]), *lines):
        print(f"predicted  {line}")
    print(f"vtfast: note: {PREDICTED}", file=sys.stderr)
    return 0


def _plan(args: argparse.Namespace, name: str) -> Plan:
    published = model_config(args.model).preprocessing
    frames, size = args.frames or published.frames, args.size or published.crop
    return plan(
        args.model,
        (args.batch, 3, frames, size, size),
        gpu(name),
        dtype=args.dtype,
        checkpointing=args.checkpointing,
        optimizer=args.optimizer,
        gpus=args.gpus,
        limits=not args.all_gpus,
    )


def _subject(found: Plan) -> str:
    where = "" if found.gpus == 1 else f", {found.gpus} GPUs data parallel"
    optimizer = "" if found.optimizer == "none" else f", {found.optimizer}"
    clip = " x ".join(map(str, found.clip))
    return f"{found.model}, clips {clip} a GPU, {found.dtype}{optimizer}{where} ({PREDICTED})"


def _report(found: Plan) -> Iterable[str]:
    yield f"{found.machine.name}, {found.machine.memory / 1e9:.0f} GB"
    for step in (found.inference, found.training):
        yield ""
        yield from _step(found, step)
    if found.limits:
        yield ""
        yield "largest clip that fits   frames   batch    size   (each alone, the others as given)"
    for mode, limits in found.limits.items():
        yield f"  {_TITLES[mode]:<22} {limits.frames:>6}  {limits.batch:>6}  {limits.size:>6}"
        if limits.bounded:
            yield f"  {'':<22} not bounded by memory: {', '.join(limits.bounded)}"


_TITLES = {"inference": "forward", "training": "training step", "checkpointing": "with checkpointing"}


def _step(found: Plan, step: Step) -> Iterable[str]:
    title = "forward" if step.mode == "inference" else "training step"
    title += ", checkpointing" if step.mode == "checkpointing" else ""
    yield f"{title}: {_time(step.seconds)}, {step.clips_per_second:.4g} clips/s, mostly {_BOUNDS[step.bound]}"
    estimate = step.estimate
    if estimate.host > estimate.busy:
        yield f"  the GPU computes for {_time(estimate.busy)} and waits for PyTorch to issue the operators"
    shares = sorted(estimate.by_kind.items(), key=lambda item: -item[1])
    yield "  time: " + ", ".join(f"{kind} {seconds / estimate.busy:.0%}" for kind, seconds in shares)
    if found.gpus > 1 and step.mode != "inference":
        yield f"  gradients between GPUs: {_time(step.all_reduce)} that the backward does not hide"
    parts = ((part, getattr(step.memory, part)) for part in _PARTS)
    yield "  memory: " + ", ".join(f"{part} {size / 2**30:.2f}" for part, size in parts if size) + " GiB at the peak"
    verdict = "fits" if step.fits else "does not fit"
    yield f"  in all {step.memory_held / 1e9:.1f} of {found.machine.memory / 1e9:.0f} GB: {verdict}"


_BOUNDS = {
    "memory": "memory-bound",
    "products": "matrix-bound",
    "vector": "bound by vector arithmetic",
    "exponentials": "bound by exponentials",
    "launches": "bound by launches",
}


def _table(plans: Iterable[Plan]) -> Iterable[str]:
    yield "gpu         forward      clips/s  training     clips/s  memory, GB  fits"
    for found in plans:
        forward, step = found.inference, found.training
        yield (
            f"{found.machine.name:<10}  {_time(forward.seconds):<10} {forward.clips_per_second:>8.4g}"
            f"  {_time(step.seconds):<10} {step.clips_per_second:>8.4g}  {step.memory_held / 1e9:>10.1f}"
            f"  {'yes' if step.fits else 'no'}"
        )


def _time(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"


def _as_json(found: Plan) -> dict[str, Any]:
    content = asdict(found)
    content["machine"] = found.machine.name
    for name in ("inference", "training"):
        content[name]["bound"] = getattr(found, name).bound
    return {"note": PREDICTED, **content}


def _print_validation(comparisons: Iterable[Comparison], as_json: bool) -> int:
    """One line a comparison, as they come."""
    outside = 0
    for found in comparisons:
        outside += not found.within
        if as_json:
            print(json.dumps({**asdict(found), "error": found.error, "within": found.within}), flush=True)
        else:
            mark = "" if found.within else "  OUTSIDE"
            times = f"predicted {_time(found.predicted):<9} measured {_time(found.measured):<9}"
            print(f"{found.title:<62} {times} {found.error:+5.0%}{mark}", flush=True)
    if outside:
        print(f"vtfast: {outside} predictions are off by more than {TOLERANCE:.0%}", file=sys.stderr)
    return 1 if outside else 0
