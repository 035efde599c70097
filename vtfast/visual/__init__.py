"""Pictures of what a model attends to. Pages with text on them need Pillow."""

from vtfast.visual.colours import viridis
from vtfast.visual.overlay import Scale, overlay
from vtfast.visual.panels import Panel, film, strip

__all__ = ["Panel", "Scale", "film", "overlay", "strip", "viridis"]
