"""Any request at the control room is answered as its OpenAPI document says."""

from typing import Any

import pytest
import schemathesis
from hypothesis import given
from schemathesis import BaseSchema, Case
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from pilothouse.control_room.web.access import Access, Person, digest
from pilothouse.control_room.web.app import make_app
from pilothouse.control_room.web.archive import ArchivePool
from pilothouse.settings import Settings
from pilothouse.storage.connect import connect
from pilothouse.tests.archived_runs import RunArchive
from pilothouse.tests.endpoint_fixture import EndpointProcess
from pilothouse.tests.fuzzing import examples
from pilothouse.tests.governed_run import GovernedRun

pytestmark = [pytest.mark.fuzz, pytest.mark.chaos_long]  # by command: it costs more than the rest of the doors

RUN, TOKEN = "of-fuzz", "a-token-of-the-fuzz-tests"
NO_BROKER = 503
SECONDS = 300.0
"""For an answer, however loaded the machine is."""
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.fixture(scope="module")
def archive(endpoint: EndpointProcess, tmp_path_factory: pytest.TempPathFactory) -> EndpointProcess:
    kept = RunArchive(endpoint, tmp_path_factory.mktemp("home"))
    kept.keep(GovernedRun(world=1, run_id=RUN).begin().train(30))
    return endpoint


@pytest.fixture(scope="module")
def control_room(archive: EndpointProcess) -> BaseSchema:
    settings = Settings(clickhouse_url=archive.clickhouse_url, kafka="127.0.0.1:1")
    people = {digest(TOKEN): Person("ada", "admin")}
    app = make_app(ArchivePool(lambda: connect(settings)), Access(people, frozenset({"testserver"})), settings)
    return schemathesis.openapi.from_asgi("/api/openapi.json", app).exclude(path="/api/live")


def test_any_request_at_the_control_room_is_answered_as_its_openapi_says(control_room: BaseSchema) -> None:
    operations = [found.ok() for found in control_room.get_all_operations() if isinstance(found, Ok)]
    assert len(operations) > 8
    for operation in operations:

        @examples(2)
        @given(operation.as_strategy())
        def asked(case: Case[Any]) -> None:
            if case.query.get("run"):
                case.query["run"] = RUN
            answer = case.call(headers={"Authorization": f"Bearer {TOKEN}"}, timeout=SECONDS)
            assert "Traceback" not in answer.text
            if answer.status_code != NO_BROKER:  # an order that is right says so
                case.validate_response(answer, checks=CHECKS)

        asked()
