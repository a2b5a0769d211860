"""A real MQTT broker on a free port of the loopback address."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from paho.mqtt import publish

from tests.eventually import wait_until
from tests.programs.external_programs import SEARCH_PATH
from tests.programs.free_port import free_port

START_TIMEOUT_S: Final = 20.0


@dataclass
class Mosquitto:
    """A broker that can be stopped and started again on its port."""

    folder: Path
    port: int
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def start(self) -> None:
        """Start it and wait until it accepts connections."""
        settings = self.folder / "mosquitto.conf"
        settings.write_text(f"listener {self.port} 127.0.0.1\nallow_anonymous true\npersistence false\n")
        with (self.folder / "mosquitto.log").open("ab") as output:
            self._process = process = subprocess.Popen(
                ["mosquitto", "-c", str(settings)],
                env={**os.environ, "PATH": SEARCH_PATH},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        wait_until(lambda: self._accepts() or process.poll() is not None, START_TIMEOUT_S)
        assert process.poll() is None, (self.folder / "mosquitto.log").read_text()

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def publish(self, topic: str, payload: str) -> None:
        """Send a message, and wait until the broker has taken it."""
        publish.single(topic, payload, qos=1, hostname="127.0.0.1", port=self.port)

    def _accepts(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True


@contextmanager
def mosquitto(folder: Path) -> Iterator[Mosquitto]:
    """Run a broker during a block."""
    broker = Mosquitto(folder, free_port())
    broker.start()
    try:
        yield broker
    finally:
        broker.kill()
