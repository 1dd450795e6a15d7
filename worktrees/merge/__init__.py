"""Merges N candidates in memory and says what would land; moves no ref and touches no file.

Owns the `MergeStrategy` protocol and its built-in kinds. All objects go into wt's own store. One `git merge-tree
--stdin` process works out every merge of a plan and one `git hash-object` process writes every commit, so results are
chained without a process per step: commit the tree, feed the next.

    three-way   one `--no-ff` merge commit per candidate: parents (result so far, side), where the side is a commit on
                top of the candidate's baseline that holds what the worker did
    rebase      one commit per candidate, a cherry-pick of start -> snapshot onto the result so far
    squash      merged as three-way, then one commit with one parent for all of them

Invariants:
- The verdict is git's: clean is 1, conflict is 0; anything else, a signal or an answer that cannot be read is an error
  and never a conflict.
- Attributes (`merge=union`, `text`, `eol`, …) are those of the commit merged onto and of the user's own
  `info/attributes`, never a worker's: a worker that plants `* merge=union` does not get its conflicts waved through. So
  a merge runs in a view: a temporary git directory over the store's objects, whose work tree holds nothing but those
  `.gitattributes`. With `merge.renormalize` git takes the topmost ones from the result of the merge instead; where a
  worker changed any, nothing is renormalised, and line ends that differ are a conflict.
- A job that changed nothing lands nothing, also when it began on another branch: git would merge that branch.
- Of the user's configuration only what decides the outcome of a merge is handed over. A merge driver (a command) runs
  only when the user's own global configuration defines it; one of the repository's configuration is merged as text.
- The boss's uncommitted edits that were carried into a workspace are taken out of the side again. Where they cannot be
  told from the worker's edits, the worker's are applied to the branch as it is now; only if that fails, too, is it a
  conflict.
"""

from worktrees.merge.ahead import conflict_between, conflicts_between, title_of
from worktrees.merge.strategies import GOES_ON, Candidate, MergeStrategy, Rebase, Resolution, Squash, ThreeWay

__all__ = [
    "GOES_ON", "Candidate", "MergeStrategy", "Rebase", "Resolution", "Squash", "ThreeWay",
    "conflict_between", "conflicts_between", "title_of",
]  # fmt: skip
