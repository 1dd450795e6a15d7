"""The tools of what comes after the work: look at changes, merge them, take that back, let go."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from mcp.types import CallToolResult
from pydantic import Field

from worktrees.errors import Usage
from worktrees.mcp.ground import Ground
from worktrees.mcp.saying import Cursor, Directory, JobWord, Where, answered, tool
from worktrees.mcp.shapes import (
    MOST_CHARACTERS,
    DiffPage,
    Dropped,
    LogPage,
    MergeAnswer,
    Operated,
    OverlapsPage,
    fit,
    offset_of,
    page,
    piece,
)
from worktrees.model import Merged, OnConflict, Overlap, PairConflict, Step

CHECK_SECONDS = 200.0
"""For all checks of a merge; what else it does has the rest of the time after which hosts give a call up."""
_ON_CONFLICT = ("stop", "skip", "rollback")

Jobs = Annotated[
    list[str] | None,
    Field(description="Ids or names. Default: every job of the open workflow whose work has not landed."),
]


class VerbTools:
    """The tools of one server."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground

    # ------------------------------------------------------------------------------------------------------- looking
    @tool
    def wt_diff(
        self,
        jobId: JobWord,
        view: Annotated[
            Literal["files", "patch"], Field(description="The changed files, or git's patch. Default: files.")
        ] = "files",
        cursor: Cursor = None,
        workingDirectory: Where = None,
    ) -> Annotated[CallToolResult, DiffPage]:
        """Show what a job really changed, from the files and not from its words; also while it runs.

        A page at a time: go on with nextCursor. `reportedButUntouched` and `touchedButUnreported` name where the
        worker's own account differs, `audit` what it did to git.
        """
        boss = self.ground.boss_of([jobId], workingDirectory)
        found = boss.diff(jobId, patch=view == "patch")
        changed = found.change_set.dump()
        files, patch, rest = changed["files"], None, None
        changed["files"] = []
        if view == "patch":
            patch, after = piece(found.patch or "", offset_of(cursor), most=MOST_CHARACTERS - 3000)
            rest = str(after) if after is not None else None
        else:
            changed["files"], rest = page(files, cursor, lambda file: file, most=MOST_CHARACTERS * 2 // 3)
        answer = DiffPage(change_set=found.change_set, total_files=len(files), patch=patch, next_cursor=rest).dump()
        answer["changeSet"] = changed
        lists = ("reported", "reportedButUntouched", "touchedButUnreported", "ignoredCreated", "audit.findings")
        return answered(fit(answer, *(f"changeSet.{name}" for name in lists)), patch or None)

    @tool
    def wt_overlap(
        self, jobIds: Jobs = None, cursor: Cursor = None, workingDirectory: Where = None
    ) -> Annotated[CallToolResult, OverlapsPage]:
        """Tell which jobs touch the same paths, and what would not merge: job with job, each job with your branch.

        Running jobs are looked at as they are now. Changes nothing; ask it before wt_merge. A page at a time: conflicts
        come first, then paths with the lines each changed, then the steps a merge of all would take.
        """
        boss = self.ground.boss_of(jobIds or [], workingDirectory)
        found = boss.overlap(*jobIds or [])
        everything: list[Any] = [*found.conflicts, *found.overlaps, *found.plan]
        taken, rest = page(everything, cursor, lambda item: item.dump(), most=MOST_CHARACTERS - 500)
        return answered(
            OverlapsPage(
                overlaps=[item for item in taken if isinstance(item, Overlap)],
                conflicts=[item for item in taken if isinstance(item, PairConflict)],
                branch=found.branch,
                onto=found.onto,
                plan=[item for item in taken if isinstance(item, Step)],
                total_overlaps=len(found.overlaps),
                total_conflicts=len(found.conflicts),
                next_cursor=rest,
            )
        )

    @tool
    def wt_log(self, cursor: Cursor = None, workingDirectory: Directory = None) -> Annotated[CallToolResult, LogPage]:
        """List merges, rollbacks, undos and drops, the newest first; a page at a time."""
        operations = self.ground.boss(workingDirectory).log()
        taken, rest = page(operations, cursor, lambda item: item.dump(), most=MOST_CHARACTERS - 200)
        return answered(LogPage(operations=taken, next_cursor=rest))

    # -------------------------------------------------------------------------------------------------------- moving
    @tool
    def wt_merge(
        self,
        jobIds: Annotated[
            list[str] | None,
            Field(
                description="Ids or names, merged in this order whatever their result. "
                "Default: every job of the open workflow that succeeded and has not landed, in completion order."
            ),
        ] = None,
        strategy: Annotated[
            Literal["three-way", "rebase", "squash"], Field(description="Default: three-way.")
        ] = "three-way",
        onConflict: Annotated[
            str,
            Field(
                description="stop: nothing lands when a job conflicts. skip: the others land. rollback: branch, index "
                "and files go back to the workflow's start, as by wt_rollback. Default: stop.",
                json_schema_extra={"enum": [*_ON_CONFLICT]},
            ),
        ] = "stop",
        onOverlap: Annotated[
            Literal["allow", "refuse"],
            Field(description="refuse: nothing lands when two jobs changed one path. Default: allow."),
        ] = "allow",
        check: Annotated[
            list[Annotated[str, Field(max_length=1000)]] | None,
            Field(
                description="Shell commands that the merged files must pass before anything lands, in this order. "
                f"All runs together may take {CHECK_SECONDS:.0f} seconds, or the call is refused (check-outlasts) and "
                "nothing has moved; call again to go on, runs that ended are not repeated. [] for none. "
                "Default: those of the settings.",
                max_length=8,
            ),
        ] = None,
        onRed: Annotated[
            Literal["stop", "skip"],
            Field(
                description="stop: nothing lands when a check fails. skip: the jobs it fails with are left out, the "
                "others land. Default: stop."
            ),
        ] = "stop",
        into: Annotated[str | None, Field(description="Branch to merge into. Default: the one checked out.")] = None,
        message: Annotated[str | None, Field(description="Commit message. Default: made from the tasks.")] = None,
        dryRun: Annotated[bool, Field(description="Say what would happen; change nothing. Default: false.")] = False,
        workflow: Annotated[str | None, Field(description="The workflow, when several are open.")] = None,
        workingDirectory: Where = None,
    ) -> Annotated[CallToolResult, MergeAnswer]:
        """Merge finished jobs into your branch, all or nothing; wt_undo takes it back.

        A conflict is an answer, not an error: landed is false, nothing has moved, and `steps` name the job, its paths
        and kinds; so is a red check, with `check.culprits` and the log of each run. Your uncommitted edits stay; a
        merge that would overwrite one is refused.
        """
        _refuse_what_lasts(onConflict)
        boss = self.ground.boss_of(jobIds or [], workingDirectory)
        merged = boss.merge(
            *jobIds or [],
            workflow=workflow,
            into=into,
            message=message,
            strategy=strategy,
            on_conflict=onConflict,
            on_overlap=onOverlap,
            check=check,
            check_within_seconds=CHECK_SECONDS,
            on_red=onRed,
            dry_run=dryRun,
        )
        answer = MergeAnswer(**dict(merged), hint=_advice(merged), warnings=boss.notices).dump()
        answer["omitted"] = {}
        for step in answer["steps"]:
            kept = step["conflicts"][:50]
            if gone := len(step["conflicts"]) - len(kept):
                answer["omitted"]["conflicts"] = answer["omitted"].get("conflicts", 0) + gone
            step["conflicts"] = kept
        return answered(fit(answer, "overlaps", "warnings", "check.runs", "steps"))

    @tool
    def wt_rollback(
        self,
        to: Annotated[
            str | None, Field(description="What this operation left, such as op-000017. Default: the workflow's start.")
        ] = None,
        workflow: Annotated[str | None, Field(description="The workflow, when several are open.")] = None,
        workingDirectory: Directory = None,
    ) -> Annotated[CallToolResult, Operated]:
        """Put your branch, index and files back to what was recorded when the workflow opened.

        What that throws away is kept first: wt_undo brings it back. Jobs and their work stay.
        """
        boss = self.ground.boss(workingDirectory)
        done = boss.rollback(to, workflow=workflow)
        return answered(fit(Operated(**dict(done), warnings=boss.notices).dump(), "jobs", "warnings"))

    @tool
    def wt_undo(
        self,
        operation: Annotated[str | None, Field(description="Such as op-000017. Default: the last one.")] = None,
        workingDirectory: Directory = None,
    ) -> Annotated[CallToolResult, Operated]:
        """Reverse a merge, rollback, drop or undo; an undo can be undone. Refused where it would overwrite an edit."""
        boss = self.ground.boss(workingDirectory)
        done = boss.undo(operation)
        return answered(fit(Operated(**dict(done), warnings=boss.notices).dump(), "jobs", "warnings"))

    @tool
    def wt_drop(
        self,
        jobIds: Annotated[list[str], Field(description="Ids or names of finished jobs.", min_length=1)],
        force: Annotated[
            bool,
            Field(description="Also what no snapshot can hold: special files, files over a limit. Default: false."),
        ] = False,
        dryRun: Annotated[bool, Field(description="Say what would happen; change nothing. Default: false.")] = False,
        workingDirectory: Where = None,
    ) -> Annotated[CallToolResult, Dropped]:
        """Give jobs up: their worktrees go and wt_merge passes them by; their work stays as a snapshot (wt_undo)."""
        boss = self.ground.boss_of(jobIds, workingDirectory)
        done = boss.drop(*jobIds, dry_run=dryRun, force=force)
        return answered(fit(Dropped(**dict(done), warnings=boss.notices).dump(), "removals", "warnings"))


def _refuse_what_lasts(policy: str) -> None:
    """What the command line does about a conflict besides, and a call cannot wait for."""
    if policy in _ON_CONFLICT:
        return
    if policy in get_args(OnConflict):
        raise Usage(
            f"onConflict `{policy}` waits for workers or for people, longer than a call may last",
            hint="take skip, then spawn the task again with codex_spawn and wt_drop the old job",
        )
    raise Usage(f"`{policy}` is no onConflict", hint=f"take one of {', '.join(_ON_CONFLICT)}")


def _advice(merged: Merged) -> str | None:
    """What to do about a merge that left something out."""
    if merged.rolled_back_by:
        return f"a job did not merge; all is as at the workflow's start. wt_undo reverses {merged.rolled_back_by}."
    if merged.check is not None and merged.check.branch_fails:
        return "the check fails on the branch without any job: mend that first, or take another check."
    if red := [step.name or step.job_id for step in merged.steps if step.outcome == "failed-check"]:
        return (
            f"{', '.join(red[:5])} did not pass the check; read the logs that check.runs name. The others land with "
            "onRed skip; spawn the task again with what the check said, and wt_drop the old job."
        )
    stopped = [step for step in merged.steps if step.outcome == "conflict"]
    if stopped:
        words = ", ".join(step.name or step.job_id for step in stopped[:5])
        return (
            f"{words} did not merge. Look with wt_diff; then spawn the task again (it starts from the branch as it is "
            "then) and wt_drop the old job, or merge the others with onConflict skip."
        )
    if not merged.steps:
        return "nothing to merge: no finished job that succeeded is left; see wt_list"
    return None
