"""Each module by itself, on real files and repositories."""
