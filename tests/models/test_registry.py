import dataclasses

import pytest
import torch

from vtfast.models import Preprocessing, create_model, list_models, model_config, register_model
from vtfast.models.preprocessing import IMAGENET_MEAN, IMAGENET_STD


def test_lists_by_pattern() -> None:
    assert list_models("swin3d_*") == ["swin3d_b", "swin3d_b_ssv2", "swin3d_l", "swin3d_s", "swin3d_t"]
    assert list_models("*_t") == ["mvit_v2_t", "swin3d_t"]
    assert list_models("resnet*") == []


@pytest.mark.parametrize("name", ["swin3d_t", "swin3d_s", "swin3d_b", "swin3d_l", "swin3d_b_ssv2"])
def test_every_model_builds_with_its_published_configuration(name: str) -> None:
    with torch.device("meta"):
        model = create_model(name)
    config = model_config(name)
    assert model.preprocessing is config.preprocessing
    assert config.preprocessing == Preprocessing(
        mean=IMAGENET_MEAN, std=IMAGENET_STD, short_side=256, crop=224, frames=32, stride=2, antialias=False,
        interpolation="bilinear",
    )  # fmt: skip
    assert model.num_classes == config.num_classes == (174 if name.endswith("ssv2") else 400)
    assert model.window == ((16, 7, 7) if name.endswith("ssv2") else (8, 7, 7))


def test_shapes_without_memory() -> None:
    with torch.device("meta"):
        assert create_model("swin3d_l")(torch.empty(2, 3, 32, 224, 224)).shape == (2, 400)


def test_configuration_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        model_config("swin3d_t").preprocessing.crop = 112


def test_number_of_classes_is_the_users() -> None:
    with torch.device("meta"):
        assert create_model("swin3d_b_ssv2", num_classes=400).num_classes == 400
        assert create_model("swin3d_t", num_classes=0).get_classifier().__class__ is torch.nn.Identity


def test_unknown_name_suggests_close_ones() -> None:
    with pytest.raises(ValueError, match=r"name must be a registered model, such as swin3d_.*, got 'swin3d_tiny'"):
        create_model("swin3d_tiny")
    with pytest.raises(ValueError, match=r"such as mvit_v1_b, .*, got 'zzz'"):
        model_config("zzz")


def test_unknown_option() -> None:
    with pytest.raises(TypeError, match="windows"):
        create_model("swin3d_t", windows=7)


def test_names_are_taken_once() -> None:
    def swin3d_t(**config: object) -> torch.nn.Module:
        return torch.nn.Identity()

    with pytest.raises(ValueError, match="a model named 'swin3d_t' is registered already"):
        register_model(preprocessing=Preprocessing())(swin3d_t)
