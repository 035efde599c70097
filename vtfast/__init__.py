"""Fast video transformers: backbones, checkpoints and compiled operations on 3D token grids."""

from vtfast import ops, reference
from vtfast._backend import current_backend, use_backend
from vtfast._launch_plan import launch_plan
from vtfast._library import build_info
from vtfast.models import create_model, list_models

__version__ = "0.1.0"

__all__ = [
    "build_info",
    "create_model",
    "current_backend",
    "launch_plan",
    "list_models",
    "ops",
    "reference",
    "use_backend",
]
