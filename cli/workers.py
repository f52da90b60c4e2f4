"""What `pilothouse worker ROLE` runs: the governor, the archiver, the advisor, or the embedded archive's endpoint.

Called by `stack_commands.worker`, in a process of its own. Passwords come by the environment, not as arguments.
"""

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from ..access import is_loopback
from ..events.errors import UserMistake
from ..keyring import sealing_key
from ..settings import Settings
from .extras import LOCAL, SERVER, require

if TYPE_CHECKING:
    from ..storage.endpoint import EndpointConfig

READER_TOKEN = "PILOTHOUSE_READER_TOKEN"
ROLES = ("governor", "archiver", "advisor", "endpoint")


def run(role: str, settings: Settings, environ: Mapping[str, str]) -> int:
    """Run this worker to its end; the process's exit status.

    Raises:
        UserMistake: there is no such worker, or it cannot run here.
    """
    match role:
        case "governor" | "archiver" | "advisor":
            require(SERVER, f"the {role}")
            from ..stream_processors.process import run_worker

            return run_worker(settings, role)
        case "endpoint":
            require(LOCAL, "the archive's endpoint")
            return run_endpoint(settings, environ)
        case _:
            raise UserMistake(f"no worker {role!r}: there are {', '.join(ROLES)}")


def run_endpoint(settings: Settings, environ: Mapping[str, str]) -> int:
    """The embedded archive at the port in `settings.clickhouse_url`: on loopback, or where the settings say."""
    from ..storage.endpoint import run as run_to_the_end
    from ..stream_processors.process_log import log_to_stderr

    log_to_stderr("endpoint", settings.slot, settings.log_format)
    run_to_the_end(_endpoint_config(settings, environ), ready=lambda port: logging.info("listening on %d", port))
    return 0


def _endpoint_config(settings: Settings, environ: Mapping[str, str]) -> "EndpointConfig":
    from ..storage.endpoint import EndpointConfig

    url = urlsplit(settings.clickhouse_url)
    if not url.password or READER_TOKEN not in environ:
        raise UserMistake(
            "the endpoint needs two passwords: one in PILOTHOUSE_CLICKHOUSE_URL, http://pilothouse:PASSWORD@HOST:PORT, "
            f"the reader's in {READER_TOKEN}; `pilothouse up` sets both"
        )
    return EndpointConfig(
        data_dir=settings.data_dir / "archive",
        full_token=unquote(url.password),
        reader_token=environ[READER_TOKEN],
        host=settings.archive_host,
        port=url.port or 0,
        open_to_others=not is_loopback(settings.archive_host),
        certificate=settings.archive_certificate,
        certificate_key=settings.archive_certificate_key,
        key=sealing_key(settings),
    )
