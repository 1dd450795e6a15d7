"""A complete boss: `python docs/boss.py 'COMMAND' 'COMMAND' ...` in a repository runs each in a worktree and merges.

A command that conflicts with the others runs again, on what they made of the branch.
"""

import sys

from worktrees import Boss
from worktrees.model import JobSpec


def main(commands: list[str]) -> int:
    """Exit status 1 when something did not land."""
    boss = Boss(".")
    specs = [JobSpec(name=f"part-{n}", command=["sh", "-c", text]) for n, text in enumerate(commands, 1)]
    mine = {job.job_id: job for job in boss.spawn_many(specs).jobs}
    while (waited := boss.wait(*mine, any=True)).completed:
        outcome = boss.result(waited.completed[0])
        files = outcome.change_set.files if outcome.change_set else []
        print(outcome.job.name, outcome.job.result, *(file.path for file in files))
    merged = boss.merge(*(job for job in mine if boss.status(job)[0].result == "succeeded"), on_conflict="skip")
    for step in merged.steps:
        if step.outcome == "conflict":
            boss.drop(step.job_id)
            again = boss.spawn(mine[step.job_id].command, name=mine[step.job_id].name)
            boss.wait(again.job_id)
            print(again.name, "again:", "landed" if boss.merge(again.job_id).landed else "not landed")
    return 0 if all(job.landed_by or job.dropped_by for job in boss.status(*mine)) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
