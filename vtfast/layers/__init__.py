"""Building blocks of the models; tokens are channels-last, (B, T, H, W, C)."""

from vtfast.layers.convolutional_stem import ConvolutionalStem
from vtfast.layers.depthwise_conv3d import DepthwiseConv3d
from vtfast.layers.divided_attention import DividedAttention
from vtfast.layers.geglu import Geglu
from vtfast.layers.global_relation import GlobalRelationBlock
from vtfast.layers.local_relation import LocalRelationBlock
from vtfast.layers.mlp import Mlp
from vtfast.layers.overlapping_patch_embedding import OverlappingPatchEmbed3d
from vtfast.layers.patch_embedding import PatchEmbed3d
from vtfast.layers.patch_merging import PatchMerging
from vtfast.layers.pooling_attention import PoolingAttention
from vtfast.layers.pruning_relation import PruningRelationBlock
from vtfast.layers.query_attention import QueryAttention
from vtfast.layers.residual import add_branch, residual_add
from vtfast.layers.rotary import axial_rotary, frame_rotary
from vtfast.layers.split_relation import SplitRelationBlock
from vtfast.layers.stochastic_depth import StochasticDepth
from vtfast.layers.strided_patch_embedding import StridedPatchEmbed3d
from vtfast.layers.token_pooling import TokenPooling
from vtfast.layers.token_shift import token_shift
from vtfast.layers.window_attention import WindowAttention3d

__all__ = [
    "ConvolutionalStem",
    "DepthwiseConv3d",
    "DividedAttention",
    "Geglu",
    "GlobalRelationBlock",
    "LocalRelationBlock",
    "Mlp",
    "OverlappingPatchEmbed3d",
    "PatchEmbed3d",
    "PatchMerging",
    "PoolingAttention",
    "PruningRelationBlock",
    "QueryAttention",
    "SplitRelationBlock",
    "StochasticDepth",
    "StridedPatchEmbed3d",
    "TokenPooling",
    "WindowAttention3d",
    "add_branch",
    "axial_rotary",
    "frame_rotary",
    "residual_add",
    "token_shift",
]
