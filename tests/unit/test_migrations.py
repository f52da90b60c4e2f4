"""Which migrations are due, and when none may run."""

import pytest

from pilothouse.events.errors import MigrationRefused
from pilothouse.storage.migrate import Migration, load_migrations, pending

ONE, TWO = Migration(1, "log", "SELECT 1;\n"), Migration(2, "views", "SELECT 2;\n")


def test_what_was_not_applied_is_due_in_order() -> None:
    assert pending([ONE, TWO], {}) == [ONE, TWO]
    assert pending([ONE, TWO], {1: ("log", ONE.checksum)}) == [TWO]


def test_a_file_changed_after_it_ran_is_refused_by_name() -> None:
    with pytest.raises(MigrationRefused, match=r"0001_log\.sql was changed after it ran: restore it"):
        pending([ONE, TWO], {1: ("log", "another")})


def test_an_archive_ahead_of_this_code_is_refused() -> None:
    with pytest.raises(MigrationRefused, match=r"0003_later\.sql, which this version does not know"):
        pending([ONE, TWO], {3: ("later", "x")})


def test_statements_end_with_their_line() -> None:
    text = "-- why; so\nCREATE x\n(\n  a String DEFAULT ';'\n);\n\n-- then\nSELECT 1;"
    assert Migration(1, "n", text).statements == ["CREATE x\n(\n  a String DEFAULT ';'\n)", "SELECT 1"]


def test_the_files_are_numbered_without_a_hole() -> None:
    assert [migration.number for migration in load_migrations()] == list(range(1, len(load_migrations()) + 1))
