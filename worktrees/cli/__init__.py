"""The command `wt`: words to verbs, values to words; no rules of any kind.

`app` is the table of commands, each in a file loaded when it is called; `session` prints answers, warnings and errors
and decides the exit status; `quick` answers the plainest `wt list` and `wt status` and loads next to nothing. The
others hold commands by topic.

stdout is the answer, stderr the narration. Every error ends as one line and a hint, or as the JSON document; a bug ends
as a report file and one line that names it.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worktrees.cli.session import Session


def main() -> None:
    """The console script."""
    from worktrees.cli.session import Session, guarded

    session = Session(sys.argv[1:])
    sys.exit(guarded(session, _run))


def _run(session: Session) -> int:
    command, *options = session.words or [""]
    # Prompts and watchers ask these two again and again: click alone would take as long as all of the answer.
    if (
        command in {"list", "status"}
        and {"--json", "--all", "-a"}.issuperset(options)
        and "_WT_COMPLETE" not in os.environ
    ):
        from worktrees.cli.quick import show

        session.command = command
        return show(session, closed=bool({"--all", "-a"}.intersection(options)))
    from worktrees.cli.app import run

    return run(session)
