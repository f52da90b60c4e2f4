"""A network that a test makes slow: a TCP proxy in front of an embedded broker, and a broker that sends clients there.

Bytes are real and in order; what changes is when they go on. `delay` seconds are added to each way; of what a client
sends `rate` bytes a second pass; while `held`, connections stand open and nothing passes, as behind a dead switch;
while `cut`, connections end and new ones are refused, as by a dead server.
"""

import math
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from pilothouse.cli.brokers import HOST, EmbeddedBroker, free_port

CHUNK = 65_536


class SlowNetwork:
    """Listens at `port`, forwards to `target`."""

    def __init__(self, target: int) -> None:
        self.delay = 0.0
        self.rate = math.inf
        self._passing = threading.Event()
        self._passing.set()
        self._target = target
        self._open: list[socket.socket] = []
        self.port = 0
        self.restore()

    def hold(self) -> None:
        """From now on nothing passes, and nobody is told."""
        self._passing.clear()

    def let_pass(self) -> None:
        """What was held goes on, and all that follows."""
        self._passing.set()

    def cut(self) -> None:
        """To its clients the server is dead; what it has stored it keeps."""
        # A close alone would leave a thread in accept, and the port with it.
        for one in (self._listener, *self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._open.clear()

    def restore(self) -> None:
        """Listen, again at the same port."""
        self._listener = socket.create_server((HOST, self.port))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def close(self) -> None:
        self.let_pass()
        self.cut()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                try:
                    broker = socket.create_connection((HOST, self._target))
                except OSError:
                    client.close()
                    continue
                self._open += [client, broker]
                for end in (client, broker):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # slow is only what a test makes slow
                for ways in ((client, broker, True), (broker, client, False)):
                    threading.Thread(target=self._forward, args=ways, daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket, narrow: bool) -> None:
        with suppress(OSError):
            while chunk := source.recv(CHUNK):
                time.sleep(self.delay + (len(chunk) / self.rate if narrow else 0.0))
                self._passing.wait()
                sink.sendall(chunk)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


class FarBroker(EmbeddedBroker):
    """An embedded broker whose clients reach it through a `SlowNetwork`: that is the address it gives them."""

    def __init__(self, data_dir: Path) -> None:
        super().__init__(data_dir, free_port())
        self.network = SlowNetwork(self.port)

    @property
    def far_address(self) -> str:
        return f"{HOST}:{self.network.port}"

    def _command(self) -> Sequence[str]:
        command = list(super()._command())
        command[command.index("--advertised-listener-url") + 1] = f"tcp://{self.far_address}"
        return command
