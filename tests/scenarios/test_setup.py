"""A spawned worker finds a usable tree, and what was brought along is not taken for its work."""

import os
import socket
import time
from pathlib import Path

from tests.kit import Gate, RepoKit, Wt, eventually


def test_s17_what_setup_brought_is_there_and_is_not_the_workers_change(repo: RepoKit, wt: Wt) -> None:
    repo.write(".gitignore", ".env\nnode_modules/\n")
    repo.write(".worktreeinclude", ".env\n")
    repo.commit("ignore")
    repo.write(".env", "TOKEN=1\n")
    repo.write("node_modules/pkg/index.js", "x\n")
    repo.git("config", "wt.linkdirectories", "node_modules")

    wt("spawn", "--name", "w", "--", "sh", "-c", "cat .env node_modules/pkg/index.js; echo y > made", status=0)
    wt("wait", status=0)

    assert wt("logs", "w", status=0).stdout == "TOKEN=1\nx\n"
    change_set = wt("diff", "w", "--json", status=0).data["changeSet"]
    assert [file["path"] for file in change_set["files"]] == ["made"]
    assert change_set["ignoredCreated"] == []
    wt("merge", status=0)
    wt("clean", status=0)
    assert repo.read("node_modules/pkg/index.js") == b"x\n", "a link is removed, not what it leads to"


def test_s17_a_worker_that_edits_an_included_file_is_seen(repo: RepoKit, wt: Wt) -> None:
    repo.write(".gitignore", ".env\n")
    repo.write(".worktreeinclude", ".env\n")
    repo.commit("ignore")
    repo.write(".env", "TOKEN=1\n")

    wt("spawn", "--name", "w", "--", "sh", "-c", "echo TOKEN=stolen > .env", status=0)
    wt("wait", status=0)

    ignored = wt("diff", "w", "--json", status=0).data["changeSet"]["ignoredCreated"]
    assert [item["path"] for item in ignored] == [".env"]
    assert repo.read(".env") == b"TOKEN=1\n"


def test_setup_commands_wait_for_approval_and_then_run_as_the_worker(repo: RepoKit, wt: Wt) -> None:
    repo.write(".wt.toml", 'setup_commands = ["echo $WT_JOB > by-setup"]\n')
    repo.commit("ask for setup")

    answer = wt("spawn", "--name", "before", "--json", "--", "true", status=0)
    assert [warning["code"] for warning in answer.json["warnings"]] == ["setup-not-approved"]
    wt("setup", "--approve", status=0)
    answer = wt("spawn", "--name", "after", "--json", "--", "true", status=0)
    wt("wait", status=0)

    assert answer.json["warnings"] == []
    assert wt("diff", "before", "--name-only", status=0).stdout == ""
    assert wt("diff", "after", "--name-only", status=0).stdout == "by-setup\n"
    [job] = answer.data["jobs"]
    assert (Path(job["workspace"]) / "by-setup").read_text() == f"{job['jobId']}\n"


def test_every_job_has_ports_of_its_own(repo: RepoKit, wt: Wt, gate: Gate) -> None:
    repo.git("config", "wt.kwrite", "4")
    for number in range(4):
        wt("spawn", "--name", f"w{number}", "--", "sh", "-c", f"echo $WT_PORT $WT_PORT_COUNT; {gate.shell()}", status=0)
    gate.wait_arrivals(4)

    jobs = wt("list", "--json", status=0).data["jobs"]
    ports = [job["port"] for job in jobs]
    said = [wt("logs", job["jobId"], status=0).stdout for job in jobs]

    assert len(set(ports)) == 4
    assert said == [f"{port} 10\n" for port in ports]
    for port in ports:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
    gate.release()
    wt("wait", status=0)
    claims = repo.path / ".git" / "wt-state" / "ports"
    assert list(claims.iterdir()) == []


def test_s18_an_edit_of_the_main_checkout_is_reported_by_path(repo: RepoKit, wt: Wt) -> None:
    repo.write("notes.txt", "mine\n")
    script = (
        f"echo escaped >> {repo.path}/src/app.py; echo more >> {repo.path}/notes.txt; echo new > {repo.path}/new.txt"
    )

    wt("spawn", "--name", "w", "--", "sh", "-c", script, status=0)
    wt("wait", status=0)

    audit = wt("result", "w", "--json", status=0).data["audit"]
    assert not audit["clean"]
    found = {finding["path"] for finding in audit["findings"] if finding["code"] == "outside-edit"}
    assert found == {"src/app.py", "notes.txt", "new.txt"}


def test_s18_an_edit_of_a_captured_sibling_is_reported_by_path(repo: RepoKit, wt: Wt) -> None:
    job = wt("spawn", "--name", "sibling", "--json", status=0).data["jobs"][0]
    sibling = Path(job["workspace"])
    (sibling / "own.txt").write_text("its own\n")
    wt("settle", "sibling", status=0)
    (sibling / "before.txt").write_text("edited before the other began\n")
    script = (
        f"echo escaped >> {sibling}/src/app.py; echo new > {sibling}/new.txt; rm {sibling}/docs/guide.md; echo x > x"
    )
    # Clocks of file systems stand still for some milliseconds; until then both edits are of the same time.
    eventually(lambda: time.time() - (sibling / "before.txt").stat().st_ctime > 0.1)

    wt("spawn", "--name", "w", "--", "sh", "-c", script, status=0)
    wt("wait", "w", status=0)

    audit = wt("result", "w", "--json", status=0).data["audit"]
    assert {(finding["code"], finding["path"]) for finding in audit["findings"]} == {
        ("outside-edit", "src/app.py"), ("outside-edit", "new.txt"), ("outside-edit", "docs/guide.md"),
    }  # fmt: skip
    assert all("`sibling`" in finding["message"] for finding in audit["findings"])
    files = wt("diff", "sibling", "--json", status=0).data["changeSet"]["files"]
    assert [file["path"] for file in files] == ["own.txt"], "its record stands"
    named = wt("doctor", "--json", status=1).data["findings"]
    assert [finding["path"] for finding in named] == ["before.txt", "docs/guide.md", "new.txt", "src/app.py"]


def test_s18_a_job_beside_the_bosss_own_dirty_files_is_not_accused(repo: RepoKit, wt: Wt) -> None:
    repo.write("notes.txt", "mine\n")
    repo.write("src/app.py", "dirty\n")
    wt("spawn", "--name", "w", "--", "sh", "-c", "echo x > made", status=0)
    wt("wait", status=0)
    assert wt("result", "w", "--json", status=0).data["audit"] == {"clean": True, "quarantine": False, "findings": []}


def test_a_submodule_is_checked_out_and_a_move_of_it_is_recorded(repo: RepoKit, wt: Wt, tmp_path: Path) -> None:
    inner = RepoKit.make(tmp_path / "inner")
    repo.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", inner.path, "lib/inner")
    repo.commit("with a submodule")
    script = "cat lib/inner/README.md; cd lib/inner; git checkout -q HEAD~1"

    wt("spawn", "--name", "w", "--", "sh", "-c", script, status=0)
    wt("wait", status=0)

    assert "A repository for tests" in wt("logs", "w", status=0).stdout
    files = wt("diff", "w", "--json", status=0).data["changeSet"]["files"]
    assert [(file["path"], file["newMode"], file["newOid"]) for file in files] == [
        ("lib/inner", "160000", inner.head("HEAD~1"))
    ]
    assert os.listdir(repo.path / "lib" / "inner")
