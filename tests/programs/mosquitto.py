"""A real MQTT broker on a free port of the loopback address."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from paho.mqtt import publish

from tests.programs.ports import free_port
from tests.programs.restartable_server import RestartableServer


class Mosquitto(RestartableServer):
    """A broker that can be stopped and started again on its port."""

    def command(self) -> list[str]:
        """Write the settings, and return the command."""
        settings = self.folder / "mosquitto.conf"
        settings.write_text(f"listener {self.port} 127.0.0.1\nallow_anonymous true\npersistence false\n")
        return ["mosquitto", "-c", str(settings)]

    def publish(self, topic: str, payload: str) -> None:
        """Send a message, and wait until the broker has taken it."""
        publish.single(topic, payload, qos=1, hostname="127.0.0.1", port=self.port)


@contextmanager
def mosquitto(folder: Path) -> Iterator[Mosquitto]:
    """Run a broker during a block."""
    broker = Mosquitto(folder, free_port())
    broker.start()
    try:
        yield broker
    finally:
        broker.kill()
