"""The UniFormers of mmaction2, out of its installed files alone.

Its package imports most of OpenMMLab and decoders of videos, none of which these models compute with. So the files of
the models are executed by themselves, with stand-ins for what they import: base classes, logging, the registry.
"""

import functools
import importlib.util
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

from torch import nn

from vtfast.bench.measure import NotSupportedError
from vtfast.layers import StochasticDepth


def uniformer_class() -> type[nn.Module]:
    """`UniFormer` of mmaction2: clips (B, C, T, H, W) to maps, without a head.

    Raises:
        NotSupportedError: mmaction2 is not installed.
    """
    model: type[nn.Module] = _backbone("uniformer").UniFormer
    return model


def uniformer_v2_class() -> type[nn.Module]:
    """`UniFormerV2` of mmaction2: clips (B, C, T, H, W) to features (B, C'), without a head.

    Raises:
        NotSupportedError: mmaction2 is not installed.
    """
    model: type[nn.Module] = _backbone("uniformerv2").UniFormerV2
    return model


@functools.cache
def _backbone(name: str) -> ModuleType:
    """The module of the backbone in the file `name`."""
    package = importlib.util.find_spec("mmaction")  # which does not import it
    if package is None or not package.origin:
        raise NotSupportedError("mmaction2 is not installed")
    path = Path(package.origin).parent / "models" / "backbones" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"mmaction2_{name}", path)
    if not path.exists() or spec is None or spec.loader is None:
        raise NotSupportedError(f"mmaction2 has no {path.name}")
    module = importlib.util.module_from_spec(spec)
    with _stand_ins():
        spec.loader.exec_module(module)
    sys.modules[spec.name] = module  # where torch.compile looks for the names of its functions
    return module


@contextmanager
def _stand_ins() -> Iterator[None]:
    """Modules with the names that the files import, in place of OpenMMLab's own."""
    contents: dict[str, dict[str, Any]] = {
        "mmcv.cnn.bricks": {"DropPath": StochasticDepth},
        "mmengine.logging": {"MMLogger": _Logger},
        "mmengine.model": {"BaseModule": _Module, "ModuleList": nn.ModuleList},
        "mmengine.runner.checkpoint": {"_load_checkpoint": None},
        "mmengine.utils": {"to_2tuple": lambda size: (size, size)},
        "mmaction.registry": {"MODELS": _Registry},
    }
    modules: dict[str, ModuleType] = {}
    for path, attributes in contents.items():
        parts = path.split(".")
        for count in range(1, len(parts) + 1):
            name = ".".join(parts[:count])
            modules.setdefault(name, ModuleType(name))
        vars(modules[path]).update(attributes)
    with mock.patch.dict(sys.modules, modules):
        yield


class _Module(nn.Module):
    def __init__(self, init_cfg: Any = None) -> None:
        super().__init__()


class _Logger:
    @staticmethod
    def get_current_instance() -> logging.Logger:
        return logging.getLogger("mmaction2")


class _Registry:
    @staticmethod
    def register_module() -> Any:
        return lambda model: model
