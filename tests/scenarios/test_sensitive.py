"""Paths that make other programs run or obey something are pointed at wherever they are shown, and can stop a merge."""

import pytest

from tests.kit import RepoKit, Wt

HOOK, AGENTS = ".github/workflows/ci.yml", "AGENTS.md"


@pytest.fixture
def two(repo: RepoKit, wt: Wt) -> Wt:
    """Two jobs that disagree about one sensitive path; the first also adds another and a plain one."""
    repo.write(AGENTS, "be kind\n")
    repo.commit("instructions")
    first = f"mkdir -p .github/workflows; echo 'on: push' > {HOOK}; echo one >> {AGENTS}; echo x > plain.txt"
    wt("spawn", "--name", "first", "--", "sh", "-c", first, status=0)
    wt("spawn", "--name", "second", "--", "sh", "-c", f"echo two >> {AGENTS}", status=0)
    wt("wait", status=0)
    return wt


def test_sensitive_paths_are_flagged_in_diff_overlap_and_merge_plan(repo: RepoKit, two: Wt) -> None:
    wt = two

    files = wt("diff", "first", "--json", status=0).data["changeSet"]["files"]
    assert {file["path"]: file["sensitive"] for file in files} == {HOOK: True, AGENTS: True, "plain.txt": False}
    told = wt("diff", "first", status=0).stdout.splitlines()
    assert [line.split()[-1] for line in told[:-1] if line.endswith("(sensitive)")] == ["(sensitive)"] * 2

    ahead = wt("overlap", "--json", status=1).data
    assert [(item["path"], item["sensitive"]) for item in ahead["overlaps"]] == [(AGENTS, True)]
    assert [(item["path"], item["sensitive"]) for item in ahead["conflicts"]] == [(AGENTS, True)]
    assert f"{AGENTS}  (sensitive)" in wt("overlap", status=1).stdout

    plan = wt("merge", "-n", "first", "--json", status=0).data
    assert [sorted(step["sensitive"]) for step in plan["steps"]] == [[HOOK, AGENTS]]
    assert f"3 files, sensitive: `{HOOK}`, `{AGENTS}`" in wt("merge", "-n", "first", status=0).stdout
    clash = wt("merge", "-n", status=3).stdout
    assert f"{AGENTS} (contents); sensitive: `{AGENTS}`" in clash


def test_refuse_sensitive_stops_the_merge_and_names_the_paths(repo: RepoKit, two: Wt) -> None:
    before = repo.fingerprint()

    answer = two("merge", "first", "--refuse-sensitive", "--json", status=4)

    assert answer.code == "sensitive-paths"
    assert answer.json["error"]["details"]["paths"] == [HOOK, AGENTS]
    assert answer.json["error"]["message"] == f"sensitive paths are changed by `first`: `{HOOK}`, `{AGENTS}`"
    assert answer.json["error"]["hint"] == "wt diff first --patch"
    assert two("merge", "-n", "first", "--refuse-sensitive", "--json", status=4).code == "sensitive-paths"
    assert repo.fingerprint() == before
    assert two("log", "--json", status=0).data["operations"] == []


def test_refuse_sensitive_lets_everything_else_through(repo: RepoKit, wt: Wt) -> None:
    wt("spawn", "--name", "w", "--", "sh", "-c", "echo x > plain.txt; echo y >> .gitignore", status=0)
    wt("wait", status=0)

    wt("merge", "--refuse-sensitive", status=0)

    assert b"plain.txt" in repo.tree()
