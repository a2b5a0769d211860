"""Farms of Flamenco with their bridge."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integrations.flamenco_farm import Farm, flamenco_farm
from tests.programs.mosquitto import Mosquitto, mosquitto


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    with mosquitto(tmp_path_factory.mktemp("broker")) as broker:
        yield broker


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory, broker: Mosquitto) -> Iterator[Farm]:
    """A farm whose bridge runs, for tests that use a job of their own."""
    with flamenco_farm(tmp_path_factory.mktemp("farm"), broker) as farm:
        farm.start()
        yield farm


@pytest.fixture
def own_farm(tmp_path: Path) -> Iterator[Farm]:
    """A farm for a test that starts and stops the bridge or the broker."""
    with mosquitto(tmp_path) as broker, flamenco_farm(tmp_path, broker) as farm:
        yield farm
