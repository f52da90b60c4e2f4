"""How a Kafka is reached: its servers, and what it wants to know before it answers.

Made by `settings`; every client of ours is opened with it. A bare address is a broker that lets everybody in.
"""

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import ssl

Security = Literal["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"]
Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]


@dataclass(frozen=True, slots=True)
class KafkaAccess:
    """`servers` is a list of host:port, comma separated, and what this is as a text. `ca_file` names who signed the
    brokers' certificates; without it the system's authorities count.
    """

    servers: str
    security: Security = "plaintext"
    mechanism: Mechanism = "PLAIN"
    user: str = ""
    password: str = field(default="", repr=False)
    ca_file: Path | None = None

    def __str__(self) -> str:
        return self.servers

    @property
    def wants_login(self) -> bool:
        return self.security.startswith("sasl")

    @property
    def encrypted(self) -> bool:
        return self.security.endswith("ssl")

    @property
    def is_loopback(self) -> bool:
        """Whether all of its servers are this machine's own."""
        return all(is_loopback(server.strip().rpartition(":")[0]) for server in self.servers.split(","))

    def options(self) -> dict[str, Any]:
        """For the constructors of kafka-python."""
        told: dict[str, Any] = {"bootstrap_servers": self.servers.split(",")}
        if self.security != "plaintext":
            told["security_protocol"] = self.security.upper()
        if self.wants_login:
            told |= {
                "sasl_mechanism": self.mechanism,
                "sasl_plain_username": self.user,
                "sasl_plain_password": self.password,
            }
        if self.encrypted and self.ca_file is not None:
            told["ssl_cafile"] = str(self.ca_file)
        return told

    def options_of_aiokafka(self) -> dict[str, Any]:
        """For the constructors of aiokafka.

        Raises:
            OSError: the file of `ca_file` cannot be read.
        """
        told = {name: value for name, value in self.options().items() if name != "ssl_cafile"}
        return told | {"ssl_context": self.tls()} if self.encrypted else told

    def tls(self) -> "ssl.SSLContext | None":
        """None where nothing is encrypted.

        Raises:
            OSError: the file cannot be read (an SSLError is one).
        """
        import ssl

        return ssl.create_default_context(cafile=self.ca_file) if self.encrypted else None

    def advice(self) -> str:
        """What to look at where a broker answers and lets us do nothing."""
        if self.security == "plaintext":
            return (
                "is it one, and does it let clients in without a password and without TLS? "
                "Else set PILOTHOUSE_KAFKA_SECURITY"
            )
        login = f", and does it know {self.user!r} with this password (PILOTHOUSE_KAFKA_USER, …_PASSWORD, …_MECHANISM)"
        return f"does it speak {self.security} (PILOTHOUSE_KAFKA_SECURITY){login if self.wants_login else ''}?"


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens there. A name counts as what it says, and is not looked up."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


Address = str | KafkaAccess


def access_of(address: Address) -> KafkaAccess:
    """The access behind an address."""
    return address if isinstance(address, KafkaAccess) else KafkaAccess(address)
