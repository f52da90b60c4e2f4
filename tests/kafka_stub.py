"""A broker of a hundred lines, for what the embedded one cannot do: demand a password or TLS, and have no topic.

It speaks the Kafka protocol as the protocol's guide writes it down (requests and responses, each behind its length; big
endian; versions without tagged fields): ApiVersions 0, Metadata 4, Produce 5, SaslHandshake 1, SaslAuthenticate 0. Who
asks something else before the password is cut off, as Apache Kafka does it.
"""

import socket
import ssl
import struct
import threading
from collections import defaultdict
from contextlib import suppress
from typing import NamedTuple

from kafka.record import MemoryRecords

from pilothouse.cli.brokers import HOST
from pilothouse.events.codec import decode
from pilothouse.events.envelope import TrainerFact

PARTITIONS = 4
PRODUCE, METADATA, HANDSHAKE, API_VERSIONS, AUTHENTICATE = 0, 3, 17, 18, 36
VERSIONS = {PRODUCE: 5, METADATA: 4, HANDSHAKE: 1, API_VERSIONS: 0, AUTHENTICATE: 0}
UNKNOWN_TOPIC, UNSUPPORTED_VERSION, WRONG_PASSWORD = 3, 35, 58


class Request(NamedTuple):
    """The head of a request, and what follows it."""

    api: int
    version: int
    number: int
    body: "Bytes"


class Bytes:
    """Reads the protocol's types one after the other."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def number(self, shape: str) -> int:
        (value,) = struct.unpack_from(f">{shape}", self._data, self._at)
        self._at += struct.calcsize(shape)
        return int(value)

    def bytes(self, size: int) -> bytes:
        self._at += max(0, size)
        return self._data[self._at - max(0, size) : self._at]

    def text(self) -> str:
        return self.bytes(self.number("h")).decode()


def text(value: str) -> bytes:
    return struct.pack(">h", len(value)) + value.encode()


class KafkaStub:
    """One broker. `topics` may be made later; with `password` it wants `user` and that (PLAIN), with `tls` TLS."""

    def __init__(self, *topics: str, password: str = "", tls: ssl.SSLContext | None = None) -> None:
        self.topics = set(topics)
        self.refused = 0
        self._login = [b"user", password.encode()] if password else []
        self._tls = tls
        self._stored: dict[int, list[bytes]] = defaultdict(list)
        self._ends: dict[int, int] = defaultdict(int)
        self._open: list[socket.socket] = []
        self._listener = socket.create_server((HOST, 0))
        self.address = f"{HOST}:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def facts(self) -> list[TrainerFact]:
        """What was stored, partition by partition, in order."""
        facts: list[TrainerFact] = []
        for partition in sorted(self._stored):
            for batches in self._stored[partition]:
                records = MemoryRecords(batches)
                while (batch := records.next_batch()) is not None:
                    told = [decode(record.headers, bytes(record.value)) for record in batch]
                    facts += [fact for fact in told if isinstance(fact, TrainerFact)]
        return facts

    def close(self) -> None:
        for one in (self._listener, *self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._open.append(client)
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            if self._tls is not None:
                client = self._tls.wrap_socket(client, server_side=True)
                self._open.append(client)
            known = not self._login
            while (request := self._request(client)) is not None:
                answer = self._answer(request, known)
                known = known or (request.api == AUTHENTICATE and answer is not None and answer[:2] == b"\0\0")
                if answer is None:
                    break
                client.sendall(struct.pack(">ii", 4 + len(answer), request.number) + answer)
        except (OSError, struct.error):
            self.refused += 1
        else:
            self.refused += not known
        finally:
            client.close()

    def _request(self, client: socket.socket) -> Request | None:
        with client.makefile("rb", buffering=0) as file:
            head = _exactly(file, 4)
            body = Bytes(_exactly(file, struct.unpack(">i", head)[0])) if head else None
        if body is None:
            return None
        api, version, number = body.number("h"), body.number("h"), body.number("i")
        body.text()  # the client's name
        return Request(api, version, number, body)

    def _answer(self, request: Request, known: bool) -> bytes | None:
        """The response; None where the connection ends."""
        match request.api:
            case 18:
                wrong = request.version > VERSIONS[API_VERSIONS]
                spoken = [struct.pack(">hhh", api, version, version) for api, version in VERSIONS.items()]
                return struct.pack(">hi", UNSUPPORTED_VERSION * wrong, len(spoken)) + b"".join(spoken)
            case 17 if self._login:
                return struct.pack(">hi", 0, 1) + text("PLAIN")
            case 36 if self._login:
                right = request.body.bytes(request.body.number("i")).split(b"\0")[1:] == self._login
                return struct.pack(">h", WRONG_PASSWORD * (not right)) + text("wrong password") + struct.pack(">i", 0)
            case 3 if known:
                return self._metadata(request.body)
            case 0 if known:
                return self._stored_at(request.body)
            case _:
                return None

    def _metadata(self, body: Bytes) -> bytes:
        count = body.number("i")
        asked = [body.text() for _ in range(count)] if count >= 0 else sorted(self.topics)
        host, _, port = self.address.partition(":")
        broker = struct.pack(">ii", 1, 0) + text(host) + struct.pack(">ih", int(port), -1)
        answer = struct.pack(">i", 0) + broker + text("stub") + struct.pack(">ii", 0, len(asked))
        for topic in asked:
            known = topic in self.topics
            answer += struct.pack(">h", 0 if known else UNKNOWN_TOPIC) + text(topic) + b"\0"
            answer += struct.pack(">i", PARTITIONS if known else 0)
            for partition in range(PARTITIONS if known else 0):
                answer += struct.pack(">hiiiiii", 0, partition, 0, 1, 0, 1, 0)
        return answer

    def _stored_at(self, body: Bytes) -> bytes:
        body.text()
        body.number("h"), body.number("i")
        answer = struct.pack(">i", topics := body.number("i"))
        for _ in range(topics):
            answer += text(body.text()) + struct.pack(">i", partitions := body.number("i"))
            for _ in range(partitions):
                partition = body.number("i")
                records = body.bytes(body.number("i"))
                self._stored[partition].append(records)
                answer += struct.pack(">ihqqq", partition, 0, self._ends[partition], -1, 0)
                self._ends[partition] += struct.unpack_from(">i", records, 57)[0]
        return answer + struct.pack(">i", 0)


def _exactly(file: "socket.SocketIO", size: int) -> bytes:
    """So many bytes; none where the connection ended."""
    parts = b""
    while len(parts) < size:
        part = file.read(size - len(parts))
        if not part:
            return b""
        parts += part
    return parts
