import pytest

from vtfast.bench.shape_text import parse_shape, text_of
from vtfast.bench.shapes import MVIT_V1_B_BLOCKS, SWIN3D_T, SWIN3D_T_STAGES, ModelShape
from vtfast.bench.subjects import op_names, subject_named

STAGE = SWIN3D_T_STAGES[0]


@pytest.mark.parametrize("subject", [*op_names(), "swin3d_t", "mvit_v2_s"])
def test_every_named_size_survives_its_text(subject):
    sizes = list(subject_named(subject).sizes.values())
    for shape in sizes:
        parsed = parse_shape(text_of(shape), sizes[0])
        assert text_of(parsed) == text_of(shape)
        assert {**vars(parsed), "name": ""} == {**vars(shape), "name": ""}


def test_what_is_left_out_is_that_of_the_other_shape():
    parsed = parse_shape("grid=4x14x14, window=4x7x7,bias=False", STAGE)
    assert (parsed.grid, parsed.window, parsed.bias) == ((4, 14, 14), (4, 7, 7), False)
    assert parsed.num_heads == STAGE.num_heads


def test_options_of_a_model_keep_their_types():
    parsed = parse_shape("clip=2x3x8x64x64,embed_dim=48,attention_type=joint", SWIN3D_T)
    assert parsed.clip == (2, 3, 8, 64, 64)
    assert parsed.config == {"embed_dim": 48, "attention_type": "joint"}
    assert text_of(ModelShape("m", (1, 3, 8, 64, 64), {"depth": 2})) == "clip=1x3x8x64x64,depth=2"


def test_none_is_a_stride_that_is_not_there():
    plain = MVIT_V1_B_BLOCKS[0]
    assert parse_shape("q_stride=None", MVIT_V1_B_BLOCKS[1]).q_stride is None
    assert parse_shape("q_stride=1x2x2", plain).q_stride == (1, 2, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("grids=1x2x3", r"a size is given as grid=8x56x56.*fields: grid, num_heads.*got 'grids=1x2x3'"),
        ("grid", "got 'grid'"),
        ("grid=1x2", "grid must be 3 numbers like 2x2x2, got '1x2'"),
        ("grid=ax1x2", "grid must be 3 numbers"),
        ("num_heads=2x2", "num_heads must be 1 number like 2, got '2x2'"),
        ("num_heads=-2", "num_heads must be 1 number"),
        ("bias=2", "bias must be True or False, got '2'"),
    ],
)
def test_what_is_no_size_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_shape(text, STAGE)
