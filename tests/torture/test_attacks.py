"""Every attack, at every level this machine has, as root and as an ordinary user: what comes of it is on record.

Levels and users that cannot be had are skipped by name. With SIEGE_RESULTS=DIRECTORY the cells are left there, for
`python -m tests.security DIRECTORY/*.json`.
"""

import pytest

from tests.attacks import ATTACKS, EVERY
from tests.besieging import besiege, expected
from tests.security import LEVELS, USERS

pytestmark = pytest.mark.torture


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("user", USERS)
def test_s30_every_attack_has_its_cell(user: str, level: str) -> None:
    names = [attack.name for attack in EVERY]
    found = besiege(user, level, names, timeout=3000)
    assert {name: cell for name, cell in found.items() if "!" in cell} == {}, "the boss ran a worker's code"
    assert found == expected(user, level, names)
    if level == "bubblewrap":
        assert [name for name, cell in found.items() if cell.startswith("X")] == []
        assert len(ATTACKS) == 72
