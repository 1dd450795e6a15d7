"""The command `wt`: words to verbs, values to words; no rules of any kind.

`app` is the table of commands, each in a file loaded when it is called; `session` prints answers, warnings and errors
and decides the exit status; `quick` answers the plainest `wt list` and `wt status` without loading anything else. The
other files hold commands by topic.

stdout is the answer, stderr the narration. Every error ends as one line and a hint, or as the JSON document; a bug
ends as a report file and one line that names it.
"""

from __future__ import annotations

import sys


def main() -> None:
    """The console script."""
    from worktrees.cli.app import run

    sys.exit(run(sys.argv[1:]))
