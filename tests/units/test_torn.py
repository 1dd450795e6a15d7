"""What a power cut leaves of objects: torn ones go aside, whole ones stay, and it is looked once after each start."""

import os
import subprocess
from pathlib import Path

import pytest

from worktrees.git.torn import put_torn_aside


def git(store: Path, *words: str, stdin: bytes = b"") -> str:
    done = subprocess.run(["git", "--git-dir", store, *words], input=stdin, capture_output=True, check=True)
    return done.stdout.decode().strip()


@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
def test_what_is_torn_goes_aside_and_can_be_written_again(tmp_path: Path, algorithm: str) -> None:
    store = tmp_path / "store.git"
    subprocess.run(["git", "init", "-q", "--bare", f"--object-format={algorithm}", store], check=True)
    contents = {name: name.encode() * 9000 for name in ("whole", "empty", "half", "wrong", "old")}
    oids = {name: git(store, "hash-object", "-w", "--stdin", stdin=text) for name, text in contents.items()}
    places = {name: store / "objects" / oid[:2] / oid[2:] for name, oid in oids.items()}
    for path in places.values():
        path.chmod(0o600)
    whole = places["whole"].read_bytes()
    places["empty"].write_bytes(b"")
    places["half"].write_bytes(places["half"].read_bytes()[:-9])
    places["wrong"].write_bytes(whole)
    places["old"].write_bytes(b"")
    os.utime(places["old"], (1, 1))  # not of the last hour: no power cut can have done that
    packs = [git(store, "pack-objects", "-q", f"{store}/objects/pack/pack", stdin=f"{oids['whole']}\n".encode())]
    more = git(store, "hash-object", "-w", "--stdin", stdin=b"more")
    packs.append(git(store, "pack-objects", "-q", f"{store}/objects/pack/pack", stdin=f"{more}\n".encode()))
    torn = store / f"objects/pack/pack-{packs[1]}.pack"
    torn.chmod(0o600)
    torn.write_bytes(b"")

    moved = put_torn_aside(store)

    lost = {oids[name] for name in ("empty", "half", "wrong")}
    assert {name for name in moved if not name.startswith("pack-")} == lost
    assert {name.split(".")[0] for name in moved if name.startswith("pack-")} == {f"pack-{packs[1]}"}
    assert not list((store / "objects/pack").glob(f"pack-{packs[1]}.*"))
    assert (store / f"objects/pack/pack-{packs[0]}.idx").exists()
    assert sorted(os.listdir(store / "torn")) == sorted(moved)
    places["old"].unlink()
    for name in ("empty", "half", "wrong"):
        assert git(store, "hash-object", "-w", "--stdin", stdin=contents[name]) == oids[name]
    assert git(store, "fsck", "--full", "--no-dangling") == ""

    # Not again before the machine is started again.
    places["whole"].write_bytes(b"")
    assert put_torn_aside(store) == []
    (store / "boot").write_text("another")
    assert put_torn_aside(store) == [oids["whole"]]


def test_where_there_is_nothing_to_write_nothing_is_done(tmp_path: Path) -> None:
    assert put_torn_aside(tmp_path / "none") == []
    assert not (tmp_path / "none").exists()
