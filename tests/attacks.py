"""What a worker could try against the boss: 72 attacks, and some more that this program's own state invites.

A script runs in the workspace, as the worker. It finds in its environment: MAIN and GD (the boss's checkout and git
directory), WT (its own workspace), SIBLING (another's), ADMIN (git's directory of its own worktree), STATE (wt's
records), REMOTE, VICTIM (the pid of a process of the boss's), SOCKET and PORT (where the boss listens), PY (a Python
with pygit2) and `payload.sh`, which leaves a trace whenever anybody but a worker runs it.

The list of the 72 is that of an earlier study of ours; the scripts are written for this program.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Attack:
    """`reaches`: nothing changes when it works, so its exit status decides. `network`: whether the
    worker has one where that can be cut.
    """

    name: str
    script: str
    reaches: bool = False
    network: bool = True


EVIL_CONFIG = '"[core]\\n\\tfsmonitor = %s\\n" "$WT/payload.sh"'
EVIL_REPOSITORY = (
    'cp -r "$GD" gdir 2>/dev/null; rm -rf gdir/worktrees gdir/wt-state;'
    ' printf "[core]\\n\\trepositoryformatversion = 0\\n\\tbare = false\\n\\tfsmonitor = %s\\n" "$WT/payload.sh"'
    " > gdir/config"
)


def python(code: str) -> str:
    """A script in Python."""
    return f"$PY - <<'END'\nimport os, socket, sys\nenv = os.environ\n{code}\nEND"


EDIT = "echo more >> d1/f1.txt; "
COMMITS = [
    Attack("commit", EDIT + "git commit -qam evil"),
    Attack("commit --no-verify", EDIT + "git commit -qnam evil"),
    Attack("commit -n with core.hooksPath=/dev/null", EDIT + "git -c core.hooksPath=/dev/null commit -qnam evil"),
    Attack(
        "commit with the guard's variables replaced",
        EDIT + "export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=core.hooksPath GIT_CONFIG_VALUE_0=/dev/null;"
        " git commit -qnam evil",
    ),
    Attack("git -C main commit", 'git -C "$MAIN" commit -q --allow-empty -m evil'),
    Attack(
        "git -C main commit -n without hooks",
        'git -C "$MAIN" -c core.hooksPath=/dev/null commit -qn --allow-empty -m evil',
    ),
    Attack(
        "GIT_DIR=main/.git commit",
        EDIT + 'export GIT_DIR="$GD" GIT_WORK_TREE="$WT" GIT_INDEX_FILE="$TMPDIR/i";'
        " git add -A && git commit -qnm evil",
    ),
    Attack("pygit2 commit", python(
        "import pygit2\nrepo = pygit2.Repository(env['WT'])\n"
        "who = pygit2.Signature('a', 'a@x')\nold = repo.head.target\n"
        "new = repo.create_commit('HEAD', who, who, 'evil', repo[old].tree.id, [old])\nassert repo.head.target == new"
    )),
]  # fmt: skip
REFS = [
    Attack("update-ref of a branch", "git update-ref refs/heads/main refs/heads/other"),
    Attack("update-ref without hooks", "git -c core.hooksPath=/dev/null update-ref refs/heads/main refs/heads/other"),
    Attack(
        "commit-tree and update-ref", 'c=$(git commit-tree -m e "HEAD^{tree}") && git update-ref refs/heads/evil "$c"'
    ),
    Attack("update-ref of the detached HEAD", "git update-ref --no-deref HEAD refs/heads/other"),
    Attack("symbolic-ref HEAD", "git symbolic-ref HEAD refs/heads/other"),
    Attack("branch, branch -D", "git branch evil && git branch -qD other"),
    Attack("tag, tag -d", "git tag evil && git tag -d v1 > /dev/null"),
    Attack("checkout -b", "git checkout -qb evil"),
    Attack("switch --detach", "git switch -q --detach other"),
    Attack("reset --hard", "git reset -q --hard HEAD~1"),
    Attack("stash", EDIT + "git stash -q"),
    Attack("notes add", "git notes add -m evil HEAD"),
    Attack("replace", "git replace HEAD refs/heads/other"),
    Attack(
        "merge --no-ff",
        "git checkout -q --detach other; echo y > z; git add z; git commit -qnm z; git merge -q --no-ff -m m main",
    ),
    Attack("revert", "git revert --no-edit HEAD > /dev/null"),
    Attack(
        "fast-import",
        'printf "commit refs/heads/evil\\ncommitter a <a> 1 +0000\\ndata 0\\nM 644 inline z\\ndata 1\\nz\\n"'
        " | git fast-import --quiet",
    ),
    Attack("bisect start", "git bisect start > /dev/null && git bisect bad > /dev/null"),
    Attack("reflog expire --all", "git reflog expire --expire=now --expire-unreachable=now --all"),
    Attack("pack-refs --all", "git pack-refs --all"),
    Attack("a ref written by hand", 'git rev-parse HEAD > "$GD/refs/heads/evil"'),
    Attack("packed-refs edited", 'echo "$(git rev-parse HEAD) refs/heads/evil" >> "$GD/packed-refs"'),
    Attack(".git/HEAD written", 'echo "ref: refs/heads/other" > "$GD/HEAD"'),
    Attack("push", "git push -q origin HEAD:refs/heads/evil"),
    Attack("push --no-verify", "git push -q --no-verify origin HEAD:refs/heads/evil"),
    Attack("push into the repository itself", "git push -q --no-verify . HEAD:refs/heads/evil"),
    Attack("fetch into a branch", "git fetch -q . +refs/heads/other:refs/heads/evil"),
    Attack("pygit2 branch", python(
        "import pygit2\nrepo = pygit2.Repository(env['WT'])\nrepo.branches.local.create('evil', repo[repo.head.target])"
    )),
    Attack("a ref as a library without hooks writes it", python(
        "path = env['GD'] + '/refs/heads/evil'\n"
        "fd = os.open(path + '.lock', os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)\n"
        "os.write(fd, open(env['GD'] + '/refs/heads/main', 'rb').read())\nos.close(fd)\nos.rename(path + '.lock', path)"
    )),
]  # fmt: skip
CONFIGURATION = [
    Attack("config core.fsmonitor", 'git config --local core.fsmonitor "$WT/payload.sh"'),
    Attack(
        "config core.hooksPath",
        "mkdir ph && cp payload.sh ph/post-checkout && cp payload.sh ph/reference-transaction &&"
        ' git config core.hooksPath "$WT/ph"',
    ),
    Attack(
        "config filter and .gitattributes",
        'git config filter.e.clean "$WT/payload.sh" && echo "* filter=e" > .gitattributes',
    ),
    Attack("config diff.external", 'git config diff.external "$WT/payload.sh"'),
    Attack("config include.path", f'printf {EVIL_CONFIG} > inc && git config include.path "$WT/inc"'),
    Attack(
        "config --worktree core.fsmonitor",
        'git config extensions.worktreeConfig true; git config --worktree core.fsmonitor "$WT/payload.sh"',
    ),
    Attack("sparse-checkout set", "git sparse-checkout set d1"),
    Attack("own config.worktree by hand", f'printf {EVIL_CONFIG} > "$ADMIN/config.worktree"'),
    Attack("own commondir led elsewhere", EVIL_REPOSITORY + '; echo "$WT/gdir" > "$ADMIN/commondir"'),
    Attack("own gitdir pointer led elsewhere", 'echo /nowhere/.git > "$ADMIN/gitdir"'),
    Attack("a hook of the boss's", 'cp payload.sh "$GD/hooks/post-checkout"'),
    Attack("chmod -x of the boss's hook", 'chmod -x "$GD/hooks/pre-commit"'),
    Attack("chmod 000 .git/config", 'chmod 000 "$GD/config"'),
    Attack("info/exclude, info/attributes", 'echo "*" >> "$GD/info/exclude" && echo "* -diff" > "$GD/info/attributes"'),
    Attack("objects/info/alternates", 'mkdir alt && echo "$WT/alt" > "$GD/objects/info/alternates"'),
    Attack(
        "an object deleted",
        'o=$(git rev-parse HEAD:d1/f1.txt); f="$GD/objects/$(echo "$o" | cut -c1-2)/$(echo "$o" | cut -c3-)";'
        ' rm -f "$f"; test ! -e "$f"',
    ),
    Attack("gc --prune=now", "git gc -q --prune=now"),
    Attack("shallow", 'git rev-parse HEAD > "$GD/shallow"'),
    Attack("submodule add", 'git -c protocol.file.allow=always submodule --quiet add "$REMOTE" sub'),
    Attack("config --global", 'git config --global core.fsmonitor "$WT/payload.sh"'),
    Attack("~/.gitconfig", f'printf {EVIL_CONFIG} > "$HOME/.gitconfig"'),
    Attack("maintenance register", "git maintenance register"),
]
FILES = [
    Attack("the boss's index and files", 'cp "$ADMIN/index" "$GD/index"; echo evil > "$MAIN/d1/f1.txt"'),
    Attack("worktree remove of a sibling", 'git worktree remove --force --force "$SIBLING"'),
    Attack("worktree add", 'git worktree add -q "$TMPDIR/new" HEAD'),
    Attack("worktree unlock of a sibling", 'git worktree unlock "$SIBLING"'),
    Attack("a sibling's files", 'echo evil > "$SIBLING/d1/f1.txt"'),
    Attack(".git led to a repository of its own", EVIL_REPOSITORY + '; rm -f .git; echo "gitdir: $WT/gdir" > .git'),
    Attack(".git replaced by a directory", EVIL_REPOSITORY + "; rm -f .git && mv gdir .git"),
    Attack(
        "a repository inside, with fsmonitor",
        "git init -q nest && cd nest && echo x > y && git add y && git commit -qnm n &&"
        ' git config core.fsmonitor "$WT/payload.sh" && echo z >> y',
    ),
    Attack("a bare repository inside", 'git init -q --bare br && git -C br config core.fsmonitor "$WT/payload.sh"'),
]
PROCESSES = [
    Attack("kill a process of the boss's", 'kill -9 "$VICTIM"'),
    Attack("a socket of the boss's", python(
        "link = socket.socket(socket.AF_UNIX)\nlink.connect(env['SOCKET'])\nlink.send(b'x')"
    ), reaches=True),
    Attack("a process left behind", '(setsid env -i sleep "300.$PORT" > /dev/null 2>&1 < /dev/null &)'),
    Attack("TCP to the boss's port (with --no-network)", python(
        "socket.create_connection(('127.0.0.1', int(env['PORT'])), 2)"
    ), reaches=True, network=False),
    Attack("the memory of a process of the boss's", python(
        "open(f\"/proc/{env['VICTIM']}/mem\", 'r+b', 0)"
    ), reaches=True),
]  # fmt: skip
BEYOND = [
    Attack("wt's record of a sibling", 'echo "{}" > "$(echo "$STATE"/workflows/*/jobs/"${SIBLING##*/}"/job.json)"'),
    Attack("wt's store", 'git --git-dir="$STATE/store.git" config core.fsmonitor "$WT/payload.sh"'),
    Attack("wt's hooks", 'for f in "$STATE"/hooks/*/pre-push; do echo "exit 0" > "$f"; done'),
    Attack("wt's lock held", python(
        "import fcntl, glob\nname = glob.glob(env['STATE'] + '/locks/*.lock')[0]\n"
        "fcntl.flock(os.open(name, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    ), reaches=True),
    Attack("another job's environment read", python(
        "import glob\nassert b'WATCHWORD' in b''.join(open(name, 'rb').read()"
        " for name in glob.glob(env['STATE'] + '/workflows/*/jobs/*/spec.json') if env['WT_JOB'] not in name)"
    ), reaches=True),
    Attack("the kernel's program for core dumps", python(
        "path = '/proc/sys/kernel/core_pattern'\nsaid = open(path).read()\nopen(path, 'w').write(said)"
    ), reaches=True),
]  # fmt: skip
ATTACKS = [*COMMITS, *REFS, *CONFIGURATION, *FILES, *PROCESSES]
EVERY = [*ATTACKS, *BEYOND]

TELLING = (
    "commit -n with core.hooksPath=/dev/null", "config core.fsmonitor", "own commondir led elsewhere", "~/.gitconfig",
    "chmod 000 .git/config", "a sibling's files", "a repository inside, with fsmonitor", "a socket of the boss's",
    "a process left behind", ".git replaced by a directory", "wt's store", "the kernel's program for core dumps",
)  # fmt: skip
"""One of each kind, for the short run."""
