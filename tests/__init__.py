"""The tests: real git, real processes, real file systems, gates instead of sleeps."""
