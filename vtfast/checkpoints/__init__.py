"""Published weights: reading files, recognising whose they are, converting their names, loading them whole."""

from vtfast.checkpoints.loading import LoadReport, load_checkpoint
from vtfast.checkpoints.reading import read_state_dict

__all__ = ["LoadReport", "load_checkpoint", "read_state_dict"]
