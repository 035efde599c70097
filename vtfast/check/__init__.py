"""The check of every operation on the machine at hand, which `vtfast check` prints."""
