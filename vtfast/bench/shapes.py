"""Named sizes of real models."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

Triple = tuple[int, int, int]


@dataclass(frozen=True)
class WindowShape:
    """One attention inside groups of a token grid, with a bias or without: the windows of a Video Swin.

    Args:
        name: of the stage, or of the window.
        grid: tokens (T, H, W), a multiple of the window.
        num_heads: number of attention heads.
        window: group (T, H, W), in tokens.
        shift: cyclic shift (T, H, W), in tokens, after Swin's clamp: 0 along an axis that is a single window.
        head_dim: channels of a head.
        batch: clips.
        bias: whether there is a relative position bias.
    """

    name: str
    grid: Triple
    num_heads: int
    window: Triple = (8, 7, 7)
    shift: Triple = (0, 0, 0)
    head_dim: int = 32
    batch: int = 1
    bias: bool = True

    @property
    def channels(self) -> int:
        return self.num_heads * self.head_dim

    @property
    def num_tokens(self) -> int:
        return self.batch * prod(self.grid)

    @property
    def num_groups(self) -> int:
        """Windows of a clip."""
        return prod(self.grid) // self.group_size

    @property
    def group_size(self) -> int:
        """Tokens of a group."""
        return prod(self.window)

    @property
    def table_shape(self) -> tuple[int, int]:
        t, h, w = self.window
        return (2 * t - 1) * (2 * h - 1) * (2 * w - 1), self.num_heads

    @property
    def product_flops(self) -> int:
        """Floating point operations of one of attention's matrix products: two in the forward, five in the backward."""
        return 2 * self.num_tokens * self.group_size * self.channels

    def fewest_bytes(self, itemsize: int, backward: bool) -> int:
        """Forward: reads qkv, writes the output. Backward: reads qkv and the output's gradient, writes that of qkv."""
        return self.num_tokens * self.channels * itemsize * (11 if backward else 4)

    def shifted(self) -> "WindowShape":
        """The same with Swin's shift by half a window."""
        half = (w // 2 if size > w else 0 for size, w in zip(self.grid, self.window, strict=True))
        t, h, w = half
        return replace(self, name=f"{self.name}, shifted", shift=(t, h, w))


# swin3d_t at 16 x 224 x 224: patches of 2 x 4 x 4, then half the height and width a stage.
SWIN3D_T_STAGES = (
    WindowShape("stage 1", (8, 56, 56), 3),
    WindowShape("stage 2", (8, 28, 28), 6),
    WindowShape("stage 3", (8, 14, 14), 12),
    WindowShape("stage 4", (8, 7, 7), 24),
)

# Every attention of swin3d_t; stage 4 is a single window, which is not shifted.
SWIN3D_T_WINDOWS = tuple(
    variant for stage in SWIN3D_T_STAGES for variant in ((stage, stage.shifted()) if stage.num_groups > 1 else (stage,))
)


# The first stage of a Video Swin for windows of one, two and eight frames, for as many clips as take about 460 MB of
# qkv in 16 bits: several times a GPU's cache.
FILLING_WINDOWS = tuple(
    WindowShape(f"window {t} x 7 x 7", (8, 56, 56), 3, window=(t, 7, 7), batch=32) for t in (1, 2, 8)
)


@dataclass(frozen=True)
class SpaceTimeShape:
    """One attention of a TimeSformer by a named scheme, over a cls token and a token grid; the sizes are ViT-B's.

    Args:
        scheme: of `vtfast.ops.divided_attention`, with its official semantics.
        grid: tokens (T, H, W) without cls; even along the axes that "local" and "global" cut.
        num_heads: number of attention heads.
        head_dim: channels of a head.
        batch: clips.
    """

    scheme: str
    grid: Triple
    num_heads: int = 12
    head_dim: int = 64
    batch: int = 1

    @property
    def name(self) -> str:
        return f"{self.scheme} {' x '.join(map(str, self.grid))}"

    @property
    def channels(self) -> int:
        return self.num_heads * self.head_dim

    @property
    def block(self) -> Triple:
        """Tokens of a group along each axis."""
        t, h, w = self.grid
        return {
            "time": (t, 1, 1), "space": (1, h, w), "joint": (t, h, w), "width": (1, 1, w), "height": (1, h, 1),
            "local": (t, h // 2, w // 2), "global": (t // 2, h // 2, w // 2),
        }[self.scheme]  # fmt: skip

    @property
    def dilation(self) -> int:
        """Distance of a group's tokens along each axis."""
        return 2 if self.scheme == "global" else 1

    @property
    def has_cls(self) -> bool:
        """Whether cls is in every group."""
        return self.scheme != "time"

    @property
    def num_groups(self) -> int:
        """Of a clip."""
        return prod(self.grid) // prod(self.block)

    @property
    def group_size(self) -> int:
        """Tokens of a group, cls included."""
        return prod(self.block) + self.has_cls

    @property
    def num_tokens(self) -> int:
        """Tokens of all clips, cls included."""
        return self.batch * (1 + prod(self.grid))

    @property
    def num_scores(self) -> int:
        """Pairs of query and key, of all clips and heads."""
        return self.batch * self.num_heads * self.num_groups * self.group_size**2

    @property
    def product_flops(self) -> int:
        """Floating point operations of one of attention's matrix products: two in the forward, five in the backward."""
        return 2 * self.num_scores * self.head_dim

    def fewest_bytes(self, itemsize: int, backward: bool) -> int:
        """Forward: reads qkv, writes the output. Backward: reads qkv and the output's gradient, writes that of qkv."""
        tokens = self.num_tokens - (0 if self.has_cls else self.batch)
        return tokens * self.channels * itemsize * (11 if backward else 4)


# The token grids of timesformer_base at 8, 16, 32 and 96 frames (timesformer_l), and of timesformer_hr.
TIMESFORMER_GRIDS: tuple[Triple, ...] = ((8, 14, 14), (16, 14, 14), (32, 14, 14), (96, 14, 14), (16, 28, 28))

# Every scheme that models alternate, and those that have no published weights, at 8 frames.
DIVIDED = tuple(SpaceTimeShape(scheme, grid) for grid in TIMESFORMER_GRIDS for scheme in ("time", "space"))
JOINT = SpaceTimeShape("joint", TIMESFORMER_GRIDS[0])
SPARSE_AND_AXIAL = tuple(
    SpaceTimeShape(scheme, TIMESFORMER_GRIDS[0]) for scheme in ("width", "height", "local", "global")
)

# The same for as many clips as take about 460 MB of qkv in 16 bits: several times a GPU's cache.
FILLING_TIME = tuple(SpaceTimeShape("time", (t, 14, 14), batch=512 // t) for t in (8, 16, 32))
FILLING_LONG_TIME = SpaceTimeShape("time", (96, 14, 14), batch=5)
FILLING_SPACE = SpaceTimeShape("space", (8, 14, 14), batch=64)
FILLING_HR = tuple(SpaceTimeShape(scheme, (16, 28, 28), batch=8) for scheme in ("time", "space"))
FILLING_JOINT = SpaceTimeShape("joint", (8, 14, 14), batch=64)


@dataclass(frozen=True)
class PoolingShape:
    """The attention of one block of an MViT, over a cls token and a token grid, pooled by windows of 3 x 3 x 3.

    Args:
        name: of the block.
        grid: tokens (T, H, W) before the pooling, without cls.
        num_heads: number of attention heads.
        q_stride: of the pooling of queries; None where they are not pooled.
        kv_stride: of the pooling of keys and values.
        relative: whether there are relative positions along every axis and residual pooling, as in MViTv2.
        head_dim: channels of a head.
        batch: clips.
    """

    name: str
    grid: Triple
    num_heads: int
    q_stride: Triple | None
    kv_stride: Triple
    relative: bool = True
    head_dim: int = 96
    batch: int = 1

    @property
    def channels(self) -> int:
        return self.num_heads * self.head_dim

    @property
    def q_grid(self) -> Triple:
        return _pooled(self.grid, self.q_stride or (1, 1, 1))

    @property
    def k_grid(self) -> Triple:
        return _pooled(self.grid, self.kv_stride)

    @property
    def num_queries(self) -> int:
        """Of a head of a clip, cls included."""
        return 1 + prod(self.q_grid)

    @property
    def num_keys(self) -> int:
        """Of a head of a clip, cls included."""
        return 1 + prod(self.k_grid)

    @property
    def num_scores(self) -> int:
        """Pairs of query and key, of all clips and heads."""
        return self.batch * self.num_heads * self.num_queries * self.num_keys

    @property
    def product_flops(self) -> int:
        """Floating point operations of one of attention's matrix products: two in the forward, five in the backward."""
        return 2 * self.num_scores * self.head_dim

    def fewest_bytes(self, itemsize: int, backward: bool) -> int:
        """Forward: reads q, k and v, writes the output. Backward: reads them and its gradient, writes theirs."""
        queries, keys = (5, 6) if backward else (2, 2)
        return self.batch * self.channels * itemsize * (queries * self.num_queries + keys * self.num_keys)


def _pooled(grid: Triple, stride: Triple) -> Triple:
    """Sizes after windows of three tokens with one of padding on either side."""
    t, h, w = ((size - 1) // step + 1 for size, step in zip(grid, stride, strict=True))
    return t, h, w


# Blocks at 16 x 224 x 224, patches of 2 x 4 x 4: the first of each stage, and one inside the longest.
MVIT_V1_B_BLOCKS = (
    PoolingShape("MViT-B block 0", (8, 56, 56), 1, None, (1, 8, 8), relative=False),
    PoolingShape("MViT-B block 1", (8, 56, 56), 2, (1, 2, 2), (1, 4, 4), relative=False),
    PoolingShape("MViT-B block 3", (8, 28, 28), 4, (1, 2, 2), (1, 2, 2), relative=False),
)
MVIT_V2_S_BLOCKS = (
    PoolingShape("MViTv2-S block 0", (8, 56, 56), 1, (1, 1, 1), (1, 8, 8)),
    PoolingShape("MViTv2-S block 1", (8, 56, 56), 2, (1, 2, 2), (1, 4, 4)),
    PoolingShape("MViTv2-S block 3", (8, 28, 28), 4, (1, 2, 2), (1, 2, 2)),
    PoolingShape("MViTv2-S block 4", (8, 14, 14), 4, (1, 1, 1), (1, 2, 2)),
    PoolingShape("MViTv2-S block 14", (8, 14, 14), 8, (1, 2, 2), (1, 1, 1)),
)

# The same for as many clips as take about 80 MB of q in 16 bits in the first block.
FILLING_POOLING = tuple(replace(shape, batch=16) for shape in MVIT_V2_S_BLOCKS)
FILLING_PLAIN_POOLING = tuple(replace(shape, batch=16) for shape in MVIT_V1_B_BLOCKS)


@dataclass(frozen=True)
class ConvolutionShape:
    """A depthwise convolution of a UniFormer or a UniFormerV2, with half the kernel of padding and stride 1.

    Args:
        name: of the place in the model.
        grid: tokens (T, H, W).
        channels: each with a kernel of its own.
        kernel: (T, H, W), odd.
        behind_cls: whether every frame of tokens begins with a cls, which takes no part.
        residual: whether the tokens are added to the result; otherwise this is the convolution of a volume.
        batch: clips.
    """

    name: str
    grid: Triple
    channels: int
    kernel: Triple = (3, 3, 3)
    behind_cls: bool = False
    residual: bool = False
    batch: int = 1

    @property
    def num_elements(self) -> int:
        """Of the tokens, and of the result."""
        return self.batch * prod(self.grid) * self.channels

    @property
    def flops(self) -> int:
        """Floating point operations of a forward, and of either gradient; what lies in the padding does not count."""
        taps = (
            sum(min(i, half) + min(size - 1 - i, half) + 1 for i in range(size))
            for size, half in zip(self.grid, (k // 2 for k in self.kernel), strict=True)
        )
        return 2 * self.batch * self.channels * prod(taps)

    def fewest_bytes(self, itemsize: int, backward: bool) -> int:
        """Forward: reads tokens, writes the result. Backward: reads tokens and a gradient, writes that of tokens."""
        return (5 if backward else 2) * self.num_elements * itemsize


# The stages of uniformer_s at 16 x 224 x 224: position embeddings of 3 x 3 x 3 in all, local relations of 5 x 5 x 5 in
# the first two.
UNIFORMER_STAGES: tuple[tuple[Triple, int], ...] = (
    ((8, 56, 56), 64), ((8, 28, 28), 128), ((8, 14, 14), 320), ((8, 7, 7), 512),
)  # fmt: skip
UNIFORMER_CONVOLUTIONS = tuple(
    ConvolutionShape(f"{size} x {size} x {size}, {channels} channels, {' x '.join(map(str, grid))}", grid, channels,
                     (size, size, size))
    for size in (3, 5)
    for grid, channels in UNIFORMER_STAGES
)  # fmt: skip
# Of uniformer_v2_b16 at 8 frames of 224 x 224: local relations over time, and a position embedding.
UNIFORMER_V2_TIME = ConvolutionShape("3 x 1 x 1, 512 channels, 8 x 14 x 14", (8, 14, 14), 512, (3, 1, 1))
UNIFORMER_V2_POSITION = ConvolutionShape(
    "3 x 3 x 3, 768 channels, 8 x 14 x 14 behind cls", (8, 14, 14), 768, behind_cls=True
)

# As many clips as fill a GPU and are several times its cache in bfloat16.
FILLING_BLOCK, FILLING_HALF_BLOCK, FILLING_QUARTER_BLOCK = (
    replace(shape, batch=32) for shape in UNIFORMER_CONVOLUTIONS[:3]
)
FILLING_LARGE = replace(UNIFORMER_CONVOLUTIONS[4], batch=32)
FILLING_CONVOLVED_TIME, FILLING_POSITION = (
    replace(shape, batch=64) for shape in (UNIFORMER_V2_TIME, UNIFORMER_V2_POSITION)
)


@dataclass(frozen=True)
class RotaryShape:
    """Rotary embedding of packed qkv behind a cls token, by frame or by place in it, as in timesformer-pytorch.

    Args:
        grid: tokens (T, H, W).
        num_heads: number of attention heads.
        head_dim: channels of a head.
        axes: "time" or "space", what the tables go by.
        batch: clips.
    """

    grid: Triple
    num_heads: int = 8
    head_dim: int = 64
    axes: str = "time"
    batch: int = 1

    @property
    def channels(self) -> int:
        return self.num_heads * self.head_dim

    @property
    def num_tokens(self) -> int:
        """Of all clips, cls included."""
        return self.batch * (1 + prod(self.grid))

    def fewest_bytes(self, itemsize: int, backward: bool) -> int:
        """Reads and writes qkv; with the backward also its gradient."""
        return self.num_tokens * 3 * self.channels * itemsize * (4 if backward else 2)


@dataclass(frozen=True)
class ModelShape:
    """A video backbone on a clip.

    Args:
        model: name in vtfast's registry, and for a Video Swin or an MViT in torchvision.
        clip: (B, C, T, H, W).
        config: options of vtfast's model that differ from the published ones; upstreams follow those they know.
    """

    model: str
    clip: tuple[int, int, int, int, int]
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.model} {' x '.join(map(str, self.clip))}"


SWIN3D_T = ModelShape("swin3d_t", (1, 3, 16, 224, 224))
TIMESFORMER_BASE = ModelShape("timesformer_base", (1, 3, 8, 224, 224))
MVIT_V1_B = ModelShape("mvit_v1_b", (1, 3, 16, 224, 224))
MVIT_V2_S = ModelShape("mvit_v2_s", (1, 3, 16, 224, 224))
UNIFORMER_S = ModelShape("uniformer_s", (1, 3, 16, 224, 224))
UNIFORMER_V2_B16 = ModelShape("uniformer_v2_b16", (1, 3, 8, 224, 224))
