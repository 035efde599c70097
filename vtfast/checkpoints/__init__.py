"""Published weights: reading files, recognising whose they are, converting their names, loading them whole."""

from vtfast.checkpoints.head_rows import KINETICS_710_NAMES, label_rows
from vtfast.checkpoints.loading import LoadReport, load_checkpoint
from vtfast.checkpoints.reading import read_state_dict

__all__ = ["KINETICS_710_NAMES", "LoadReport", "label_rows", "load_checkpoint", "read_state_dict"]
