"""The scenarios of `tests/manifest.py`, by id."""
