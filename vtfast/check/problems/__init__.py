"""Problems of every operation: tensors, settings, and what tells whether the numbers are good. Tests use them too."""
