"""What a worker tries against the boss: the most telling attacks here, all of them in `tests/torture`."""

import os

import pytest

from tests import security
from tests.attacks import ATTACKS, BEYOND, EVERY, TELLING
from tests.besieging import besiege, expected

# Behind bubblewrap nothing comes of any of them, so they are tried in one go; of Landlock what it does not know is not
# asked, since each such attack costs a place of its own.
BATCH = {
    "bubblewrap": TELLING,
    "landlock": [name for name in TELLING if name != "chmod 000 .git/config"],
}


@pytest.mark.parametrize("level", ["landlock", "bubblewrap"])
@pytest.mark.parametrize("user", security.USERS)
def test_s30_the_most_telling_attacks_have_their_cell(user: str, level: str) -> None:
    found = besiege(user, level, BATCH[level], timeout=250)
    assert found == expected(user, level, BATCH[level])


def test_s30_without_a_wall_they_pass_and_still_nothing_runs_as_the_boss() -> None:
    user = "root" if os.getuid() == 0 else "user"
    names = ("config core.fsmonitor", "own commondir led elsewhere", "a repository inside, with fsmonitor")
    found = besiege(user, "none", names, timeout=250)
    assert found == expected(user, "none", names)


def test_the_table_of_the_security_document_is_what_came_of_the_attacks() -> None:
    text = security.SECURITY.read_text(encoding="utf-8")
    assert security.rendered(text) == text, "run: python -m tests.security"


def test_every_attack_is_on_record_for_every_user_and_level() -> None:
    names = [attack.name for attack in EVERY]
    assert len(ATTACKS) == 72
    assert len(set(names)) == len(ATTACKS) + len(BEYOND)
    known = security.cells()
    assert set(known) == {f"{user}-{level}" for user in security.USERS for level in security.LEVELS}
    for column, cells in known.items():
        assert set(cells) == set(names), column
        assert not [name for name, cell in cells.items() if "!" in cell], column
    for user in security.USERS:
        assert not [name for name, cell in known[f"{user}-bubblewrap"].items() if cell.startswith("X")]
