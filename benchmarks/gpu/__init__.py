"""`make gpu`: everything there is to learn about vtfast from a machine with a GPU, in one run. See __main__.py."""
