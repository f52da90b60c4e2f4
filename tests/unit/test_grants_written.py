"""What `pilothouse storage grants` writes; whether it is enough, and no more, is for `integration/test_grants`."""

from hashlib import sha256

import pytest

from pilothouse.events.errors import UserMistake
from pilothouse.storage.grants import USERS, hashes_of, names_of, rows, statements
from pilothouse.storage.read_only import ReaderLimits


def written(**passwords: str) -> list[str]:
    return list(statements(names_of({}), hashes_of(passwords), "pilothouse"))


def test_a_password_travels_as_its_hash_and_no_user_is_made_without_one() -> None:
    made = written(archiver="Zq9secret")
    digest = sha256(b"Zq9secret").hexdigest()
    assert made.count(f"CREATE USER IF NOT EXISTS `pilothouse-archiver` IDENTIFIED WITH sha256_hash BY '{digest}'") == 1
    assert f"ALTER USER `pilothouse-archiver` IDENTIFIED WITH sha256_hash BY '{digest}'" in made, "renewed"
    assert "Zq9secret" not in "".join(made)
    assert not [line for line in made if line.startswith("CREATE USER") and "archiver" not in line]


def test_every_user_is_left_with_what_is_listed_here_and_nothing_else() -> None:
    granted = [line for line in written() if line.startswith("GRANT")]
    assert len(granted) == len(USERS)
    assert all(line.endswith(" WITH REPLACE OPTION") for line in granted)


def test_whoever_asks_freely_may_neither_write_nor_raise_or_lift_a_limit() -> None:
    [limits] = [line for line in written() if "SETTINGS" in line]
    assert limits.startswith("ALTER USER `pilothouse-reader` SETTINGS readonly = 2, ")
    for name, value in vars(ReaderLimits()).items():
        assert f"{name} = {value} MIN 1 MAX {value}" in limits


def test_names_of_a_site_are_quoted_and_a_cluster_is_told_everywhere() -> None:
    names = names_of({"reader": "gra`f\\ana"})
    on_cluster = list(statements(names, {}, "a`b", "c'l"))
    assert all(" ON CLUSTER 'c\\'l' " in line for line in on_cluster)
    assert on_cluster[-1].startswith(
        "GRANT ON CLUSTER 'c\\'l' SELECT ON `a\\`b`.*, SELECT ON `system`.disks TO `gra\\`f"
    )
    assert any("CLUSTER, REMOTE ON *.*" in line for line in on_cluster)
    told = list(rows(names, "other"))
    assert {"user": "gra`f\\ana", "may": "SELECT", "on": "other.*"} in told


@pytest.mark.parametrize("given", [{"nobody": "x"}, {"archiver": ""}])
def test_a_user_of_no_role_and_an_empty_password_are_refused(given: dict[str, str]) -> None:
    with pytest.raises(UserMistake):
        hashes_of(given)
