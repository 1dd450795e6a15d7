"""The command `wt`: words to verbs, values to words; no rules of any kind.

`app` is the table of commands, each in a file loaded when it is called; `session` prints answers, warnings and errors
and decides the exit status; `glance` answers the plainest `wt list` and `wt status` and loads next to nothing, `quick`
those that take a little more. The others hold commands by topic.

stdout is the answer, stderr the narration. Every error ends as one line and a hint, or as the JSON document; a bug ends
as a report file and one line that names it.
"""

from __future__ import annotations

import gc
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from worktrees.cli.session import Session


_GARBAGE = 200_000


def main() -> None:
    """The console script."""
    words = sys.argv[1:]
    # Of what is loaded nothing becomes garbage; looking for some, again and again and once more at the end, would take
    # a quarter of the time of a short command.
    gc.set_threshold(_GARBAGE)
    failed: BaseException | None = None
    if _is_plain(words):
        from worktrees.cli.glance import answer

        try:
            content = answer(words[0], as_json="--json" in words, closed="--all" in words or "-a" in words)
            if content is not None:
                sys.stdout.buffer.write(content)
                sys.stdout.buffer.flush()
                # Taking the interpreter apart would cost an eighth of the whole answer.
                os._exit(0)
        except (KeyboardInterrupt, OSError) as error:
            failed = error
    from worktrees.cli.session import Session, guarded

    def run(session: Session) -> int:
        if failed is not None:
            raise failed
        return _run(session)

    status = guarded(Session(words), run)
    gc.freeze()
    sys.exit(status)


def _is_plain(words: list[str]) -> bool:
    """Whether a call is one of those that prompts and watchers make again and again."""
    return (
        words[:1] in (["list"], ["status"])
        and {"--json", "--all", "-a"}.issuperset(words[1:])
        and "_WT_COMPLETE" not in os.environ
    )


def _run(session: Session) -> int:
    # click alone would take as long as all of the answer.
    if _is_plain(session.words):
        from worktrees.cli.quick import show

        session.command = session.words[0]
        return show(session, closed=bool({"--all", "-a"}.intersection(session.words)))
    from worktrees.cli.app import run

    return run(session)
