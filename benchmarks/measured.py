"""What README's section "Measured" shows: which records of which machine, and what of them."""

from collections.abc import Mapping, Sequence

from benchmarks.figures import Cell, Exponent, Figure, Sentence, Table, Taken, Work
from benchmarks.quantities import memory, memory_over_qkv, over, over_best, share_of_limit, time
from vtfast.bench.subjects.subject import AUTOCAST, BOTH, FORWARD

INTEL, AMD = "intel-xeon-processor-2-cores", "amd-epyc-2-cores"

# Where each part is shown from; of TimeSformers, long clips and the sweep over frames on their own.
SWIN_ON, TIMESFORMER_ON, LONG_CLIPS_ON, MVIT_ON, UNIFORMER_ON = AMD, AMD, INTEL, AMD, AMD

# Clips as `vtfast bench --shape` takes them, and as they are written for people; what Video Swin is shown at.
_32_FRAMES, _16_FRAMES, _8_FRAMES = "1x3x32x224x224", "1x3x16x224x224", "1x3x8x224x224"
_CLIPS = {_32_FRAMES: "32 x 224 x 224", _16_FRAMES: "16 x 224 x 224", _8_FRAMES: "8 x 224 x 224"}
SWIN_CLIP = _16_FRAMES

_DTYPES = ("float32", "bfloat16")
_STEPS = {
    "forward, float32": ("float32", FORWARD),
    "forward, bfloat16": ("bfloat16", FORWARD),
    "forward, autocast bfloat16": (AUTOCAST, FORWARD),
    "training step, float32": ("float32", BOTH),
}
_FORWARDS = {name: work for name, work in _STEPS.items() if work[1] == FORWARD}

_LINEAR = {"linear layers alone": time("linear layers")}


def _model(machine: str, name: str, clip: str, dtype: str = "float32", mode: str = FORWARD) -> Work:
    return Work(machine, "models", name, f"clip={clip}", dtype, mode)


def _steps(
    machine: str, name: str, clip: str, label: str = "", steps: Mapping[str, tuple[str, str]] = _STEPS
) -> dict[str, Sequence[Work]]:
    """A row a step of a model."""
    return {f"{label}{step}": [_model(machine, name, clip, *work)] for step, work in steps.items()}


def _cores(machine: str, subject: str, shapes: Sequence[str]) -> dict[str, Sequence[Work]]:
    """A row a mode and dtype of an operation, with the sizes side by side."""
    return {
        f"{mode}, {dtype}": [Work(machine, "ops", subject, shape, dtype, mode) for shape in shapes]
        for mode in (FORWARD, BOTH)
        for dtype in _DTYPES
    }


def _dtypes(machine: str, subject: str, shape: str, mode: str) -> Sequence[Work]:
    """An operation's dtypes, side by side."""
    return [Work(machine, "ops", subject, shape, dtype, mode) for dtype in _DTYPES]


def _peaks(machine: str, works: Mapping[str, tuple[str, str, str]]) -> dict[str, Figure]:
    """For every name, memory of vtfast's model under that name, and of the upstream's under `their_` and it."""
    steps = {name: [_model(machine, model, clip, mode=mode)] for name, (model, clip, mode) in works.items()}
    ours: dict[str, Figure] = {name: Cell(memory(), step) for name, step in steps.items()}
    return ours | {f"their_{name}": Cell(memory("eager"), step) for name, step in steps.items()}


def _frames(options: str, frames: Sequence[int]) -> Exponent:
    """Of timesformer_base, from clip to logits."""
    shape = f"clip=1x3x{{}}x224x224{options}"
    return Exponent([
        Work(LONG_CLIPS_ON, "scaling", "timesformer_base", shape.format(t), sweep="frames", at=t) for t in frames
    ])  # fmt: skip


_SHIFTED = "grid=8x56x56,num_heads=3,shift=0x3x3"
_SHIFTED_STEP = [Work(SWIN_ON, "ops", "window_attention", _SHIFTED, mode=BOTH)]
_SWIN: dict[str, Figure] = {
    "swin3d_t": Table(
        f"`swin3d_t`, {_CLIPS[SWIN_CLIP]}, clip to logits",
        {
            "torchvision eager": time("eager"), "`torch.compile`": time("compile"), "vtfast": time(),
            "over eager": over("eager"), "over compile": over("compile"),
            "over eager, pages kept": over("eager", "kept"), **_LINEAR,
        },
        _steps(SWIN_ON, "swin3d_t", SWIN_CLIP),
    ),
    "window_attention": Table(
        "window attention core, (8, 7, 7), stage 1 of `swin3d_t`, plain / shifted",
        {
            "eager": time("eager"), "SDPA, mask prebuilt": time("SDPA"), "vtfast": time(), "over eager": over("eager"),
            "over the best": over_best(), "share of the limit": share_of_limit(),
        },
        _cores(SWIN_ON, "window_attention", ("grid=8x56x56,num_heads=3", _SHIFTED)),
    ),
    "swin3d_t-memory": Sentence(
        "A training step of `swin3d_t` in float32 peaks at {step} beyond weights and clip, torchvision's at"
        " {their_step}. Forward + backward of the core takes {core} times the memory of qkv, results and gradients"
        " included, eager's {their_core} times.",
        _peaks(SWIN_ON, {"step": ("swin3d_t", SWIN_CLIP, BOTH)})
        | {"core": Cell(memory_over_qkv(), _SHIFTED_STEP), "their_core": Cell(memory_over_qkv("eager"), _SHIFTED_STEP)},
    ),
}  # fmt: skip

_TIME, _SPACE = (f"scheme={scheme},grid=8x14x14" for scheme in ("time", "space"))
_TIMESFORMER: dict[str, Figure] = {
    "timesformer_base": Table(
        f"`timesformer_base`, {_CLIPS[_8_FRAMES]}, clip to logits",
        {
            "Hugging Face eager": time("eager"), "with SDPA patched in": time("SDPA"), "vtfast": time(),
            "over eager": over("eager"), "over SDPA": over("SDPA"), **_LINEAR,
        },
        _steps(TIMESFORMER_ON, "timesformer_base", _8_FRAMES),
    ),
    "space_time_attention": Table(
        "attention core of `timesformer_base`, 8 x 14 x 14 and cls, 12 heads of 64, float32 / bfloat16",
        {
            "eager": time("eager"), "SDPA": time("SDPA"), "vtfast": time(), "over eager": over("eager"),
            "over the best": over_best(),
        },
        {
            "time, forward": _dtypes(TIMESFORMER_ON, "time_attention", _TIME, FORWARD),
            "space, forward": _dtypes(TIMESFORMER_ON, "space_attention", _SPACE, FORWARD),
            "time, forward + backward": _dtypes(TIMESFORMER_ON, "time_attention", _TIME, BOTH),
            "space, forward + backward": _dtypes(TIMESFORMER_ON, "space_attention", _SPACE, BOTH),
        },
    ),
    "time_attention-copy": Sentence(
        "A plain copy of as many bytes as attention over time has to move takes {copies} in float32 / bfloat16.",
        {"copies": Cell(time("copy"), _dtypes(TIMESFORMER_ON, "time_attention", _TIME, FORWARD))},
    ),
    "timesformer-frames": Sentence(
        "From clip to logits the time of divided attention goes with {divided}, that of joint attention with {joint}. A"
        " float32 forward of `timesformer_l` on 96 frames peaks at {long} beyond weights and clip, Hugging Face's at"
        " {their_long}; a training step of `timesformer_base` at {step}, theirs at {their_step}.",
        {
            "divided": _frames("", (8, 16, 32, 64, 96, 128)),
            "joint": _frames(",attention_type=joint", (8, 16, 32, 64)),
            **_peaks(LONG_CLIPS_ON, {"long": ("timesformer_l", "1x3x96x224x224", FORWARD)}),
            **_peaks(TIMESFORMER_ON, {"step": ("timesformer_base", _8_FRAMES, BOTH)}),
        },
    ),
}  # fmt: skip

_MVIT: dict[str, Figure] = {
    "mvit": Table(
        f"{_CLIPS[_16_FRAMES]}, clip to logits",
        {
            "torchvision eager": time("eager"), "vtfast": time(), "over eager": over("eager"), **_LINEAR,
            "share of the limit": share_of_limit(),
        },
        _steps(MVIT_ON, "mvit_v2_s", _16_FRAMES, "`mvit_v2_s`, ")
        | _steps(MVIT_ON, "mvit_v1_b", _16_FRAMES, "`mvit_v1_b`, "),
    ),
    "pooling_attention": Table(
        "attention of `mvit_v2_s` without its linear layers, block 0 / 1",
        {
            "eager": time("eager"), "SDPA, positions prebuilt": time("SDPA"), "vtfast": time(),
            "over eager": over("eager"), "over the best": over_best(),
        },
        _cores(MVIT_ON, "pooling_attention", (
            "grid=8x56x56,num_heads=1,q_stride=1x1x1,kv_stride=1x8x8",
            "grid=8x56x56,num_heads=2,q_stride=1x2x2,kv_stride=1x4x4",
        )),
    ),
    "mvit-memory": Sentence(
        "A training step of `mvit_v2_s` in float32 peaks at {second} beyond weights and clip (torchvision's"
        " {their_second}), one of `mvit_v1_b` at {first} ({their_first}).",
        _peaks(MVIT_ON, {"second": ("mvit_v2_s", _16_FRAMES, BOTH), "first": ("mvit_v1_b", _16_FRAMES, BOTH)}),
    ),
}  # fmt: skip

_UNIFORMER: dict[str, Figure] = {
    "uniformer_s": Table(
        f"`uniformer_s`, {_CLIPS[_16_FRAMES]}, clip to logits",
        {
            "mmaction2 eager": time("eager"), "`channels_last_3d`": time("channels_last_3d"),
            "the same compiled": time("channels_last_3d compiled"), "vtfast": time(), "over eager": over("eager"),
            "over the best": over_best(), **_LINEAR,
        },
        _steps(UNIFORMER_ON, "uniformer_s", _16_FRAMES),
    ),
    "uniformer_v2": Table(
        f"`uniformer_v2_b16`, {_CLIPS[_8_FRAMES]}, clip to logits",
        {
            "mmaction2 eager": time("eager"), "`torch.compile`": time("compile"), "vtfast": time(),
            "over eager": over("eager"), "over the best": over_best(), **_LINEAR,
        },
        _steps(UNIFORMER_ON, "uniformer_v2_b16", _8_FRAMES, steps=_FORWARDS),
    ),
    "uniformer-memory": Sentence(
        "A training step of `uniformer_s` in float32 peaks at {step} beyond weights and clip (mmaction2's"
        " {their_step}), a forward at {forward} ({their_forward}).",
        _peaks(UNIFORMER_ON, {
            "step": ("uniformer_s", _16_FRAMES, BOTH), "forward": ("uniformer_s", _16_FRAMES, FORWARD),
        }),
    ),
    "depthwise_conv3d": Table(
        "depthwise `Conv3d`, 8 frames, float32 / bfloat16",
        {
            "torch, NCDHW": time("NCDHW"), "torch, `channels_last_3d`": time("channels_last_3d"), "vtfast": time(),
            "over NCDHW": over("NCDHW"), "over the best": over_best(),
        },
        {
            f"{size} x {size} x {size}, {channels} channels, {side} x {side}, {mode}": _dtypes(
                UNIFORMER_ON, "depthwise_conv3d",
                f"grid=8x{side}x{side},channels={channels}{',kernel=5x5x5' if size == 5 else ''}", mode,
            )
            for size, channels, side, modes in (
                (3, 64, 56, (FORWARD, BOTH)), (5, 64, 56, (FORWARD, BOTH)), (5, 320, 14, (BOTH,)),
                (3, 512, 7, (FORWARD,)),
            )
            for mode in modes
        },
    ),
}  # fmt: skip


def _with_facts(name: str, part: Mapping[str, Figure]) -> dict[str, Figure]:
    return {**part, f"{name}-taken": Taken(list(part.values()))}


FIGURES: dict[str, Figure] = {
    **_with_facts("swin3d_t", _SWIN),
    **_with_facts("timesformer", _TIMESFORMER),
    **_with_facts("mvit", _MVIT),
    **_with_facts("uniformer", _UNIFORMER),
}
