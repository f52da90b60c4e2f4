"""What Kafka clients are opened with."""

import ssl
from pathlib import Path

import pytest

from pilothouse.access import KafkaAccess, access_of


def test_a_bare_address_is_a_broker_that_lets_everybody_in() -> None:
    assert access_of("a:1,b:2").options() == {"bootstrap_servers": ["a:1", "b:2"]}
    assert access_of("a:1").options() == access_of("a:1").options_of_aiokafka()
    assert f"{access_of('a:1,b:2')}" == "a:1,b:2"


@pytest.mark.parametrize("security", ["sasl_plaintext", "sasl_ssl"])
def test_a_login_is_given_as_it_was_set(security: str) -> None:
    access = KafkaAccess("a:1", security, "SCRAM-SHA-512", "ada", "a secret")  # type: ignore[arg-type]  # one of the two
    for options in (access.options(), access.options_of_aiokafka()):
        assert options["security_protocol"] == security.upper()
        assert options["sasl_mechanism"] == "SCRAM-SHA-512"
        assert (options["sasl_plain_username"], options["sasl_plain_password"]) == ("ada", "a secret")
    assert ("ssl_context" in access.options_of_aiokafka()) == (security == "sasl_ssl")
    assert "secret" not in repr(access)


def test_who_signed_the_certificate_is_a_file_for_one_client_and_a_context_for_the_other(tmp_path: Path) -> None:
    access = KafkaAccess("a:1", "ssl", ca_file=tmp_path / "ca.pem")
    assert access.options()["ssl_cafile"] == str(tmp_path / "ca.pem")
    with pytest.raises(OSError, match="No such file"):
        access.options_of_aiokafka()
    system = KafkaAccess("a:1", "ssl").options_of_aiokafka()["ssl_context"]
    assert isinstance(system, ssl.SSLContext)
    assert system.verify_mode is ssl.CERT_REQUIRED
