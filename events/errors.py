"""Every error of Pilothouse, named for what the caller must do next.

PilothouseError
├── UserMistake            tell the person, exit status 2
│   ├── SettingsInvalid    a setting is wrong: every bad key at once
│   ├── PolicyInvalid      a policy file is wrong: what, where, what to write instead
│   ├── UnknownRun         no such run: which ones there are
│   ├── StackNotRunning    nothing answers: how to start it
│   ├── DirectoryInUse     another process owns the data directory: which one
│   ├── SpoolInUse         the process that spooled this lives: which one
│   ├── QueryRefused       the SQL cannot be run: why, with ClickHouse's code
│   ├── EverythingMalformed  none of the last records could be read: stop, a person must look
│   ├── FileRefused        a file to import cannot be used: where in it, and why
│   └── MigrationRefused   the archive's schema is not one this code may touch: which file, what to do
├── Unavailable            try again later; nothing is lost meanwhile
│   ├── BrokerUnavailable
│   └── ArchiveUnavailable
├── RestartRequired        exit, and let the supervisor start the process again
│   └── StateBehindLog     the restored state is older than the log
└── CheckpointError        do not use this checkpoint
    ├── CheckpointCorrupt  its bytes are not what was saved: take an older one
    └── CheckpointMissing  it is not there (any more)
"""


class PilothouseError(Exception):
    """The base of every error that Pilothouse raises on purpose."""


class UserMistake(PilothouseError):
    """Somebody asked for what cannot be done; the message says what to do instead."""


class SettingsInvalid(UserMistake):
    """One or more settings are wrong; the message lists all of them."""


class PolicyInvalid(UserMistake):
    """A policy cannot be used; the message lists every fault and its place."""


class UnknownRun(UserMistake):
    """The archive holds no run of this name."""


class StackNotRunning(UserMistake):
    """A part that was asked (broker, archive) does not answer at its address."""


class DirectoryInUse(UserMistake):
    """Another process owns this data directory."""


class SpoolInUse(UserMistake):
    """What waits on disk is the business of a process that lives."""


class QueryRefused(UserMistake):
    """ClickHouse refused a query. `code` is ClickHouse's error code, 0 where there is none."""

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


class EverythingMalformed(UserMistake):
    """None of the last records could be read: to go on would drain the topic; the message says what to do."""


class FileRefused(UserMistake):
    """A file is not what it should be, or says what cannot be taken over; nothing of it was."""


class MigrationRefused(UserMistake):
    """The archive was migrated by other files than these; the message names the one and says what to do."""


class Unavailable(PilothouseError):
    """A service cannot be reached now; try again."""


class BrokerUnavailable(Unavailable):
    """Kafka cannot be reached, or refuses us."""


class ArchiveUnavailable(Unavailable):
    """ClickHouse cannot be reached, or cannot take writes."""


class RestartRequired(PilothouseError):
    """This process must end; a fresh one will do better."""


class StateBehindLog(RestartRequired):
    """A restored run state is older than the log position it was given."""


class CheckpointError(PilothouseError):
    """A checkpoint cannot be used."""


class CheckpointCorrupt(CheckpointError):
    """What is on disk is not what was saved."""


class CheckpointMissing(CheckpointError):
    """There is no such checkpoint."""
