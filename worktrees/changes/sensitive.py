"""Paths that make other programs run or obey something; flagged in diff, overlap and merge plan, never silently
accepted.

Compared without regard to case, because the boss's file system may not know it either. Build files and package
manifests are not here: a worker edits them as a matter of course, and a flag on everything is a flag on nothing.
"""

from __future__ import annotations

# Whatever lies below a directory of one of these names, at any depth.
_DIRECTORIES = frozenset(
    b"""
    .aider .buildkite .ci .circleci .claude .codex .continue .cursor .devcontainer .forgejo .gemini .gitea .githooks
    .github .gitlab .husky .idea .lefthook .opencode .teamcity .vscode .windsurf .woodpecker
    """.split()
)
# Agents' instructions; continuous integration; hooks; what shells, editors, debuggers and package managers obey where
# they stand.
_NAMES = frozenset(
    b"""
    .aider.conf.yml .clinerules .cursorrules .mcp.json .windsurfrules .worktreeinclude .wt.toml agents.md
    agents.override.md claude.local.md claude.md gemini.md
    .appveyor.yml .cirrus.yml .drone.yml .travis.yml .woodpecker.yml appveyor.yml azure-pipelines.yml
    bitbucket-pipelines.yml cloudbuild.yaml jenkinsfile
    .huskyrc .lefthook.yml .pre-commit-config.yaml .pre-commit-hooks.yaml lefthook.toml lefthook.yml
    .dir-locals.el .envrc .exrc .gdbinit .lldbinit .mise.toml .npmrc .nvim.lua .nvimrc .pnpmfile.cjs .vimrc .yarnrc
    .yarnrc.yml mise.toml
    """.split()
)
# `.gitattributes`, `.gitmodules`, `.gitlab-ci.yml`, … but not these two, which run nothing.
_HARMLESS_GIT = frozenset((b".gitignore", b".gitkeep"))
_HOOKS = frozenset(
    b"""
    applypatch-msg commit-msg fsmonitor-watchman post-applypatch post-checkout post-commit post-index-change post-merge
    post-receive post-rewrite post-update pre-applypatch pre-auto-gc pre-commit pre-merge-commit pre-push pre-rebase
    pre-receive prepare-commit-msg proc-receive push-to-checkout reference-transaction sendemail-validate update
    """.split()
)


def is_sensitive(path: bytes) -> bool:
    """Whether a change of this path deserves a second look: git's own files, hooks, CI, agent instructions, editors."""
    *directories, name = path.lower().split(b"/")
    if not _DIRECTORIES.isdisjoint(directories) or name in _NAMES:
        return True
    if name.startswith(b".git"):
        return name not in _HARMLESS_GIT
    return name in _HOOKS and b"hooks" in directories
