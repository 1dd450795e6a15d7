"""Values to text for people and to the JSON envelope for programs.

Knows nothing of where a value came from. `envelope` is the one JSON document of `--json`; `text` holds tables, colours
and durations; `jobs` shows jobs; these three need the standard library only, because `wt list` must start at once.
`answers` has a function for every other answer. Whatever a worker could have chosen (a name, a path, its output) is
shown with control characters escaped, so that it cannot drive the terminal.
"""
