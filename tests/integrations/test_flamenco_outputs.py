"""What the bridge from Flamenco takes as outputs, and what it ignores."""

from __future__ import annotations

import importlib
import json
import os
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from jobsvc import farm as farm_module
from jobsvc.farm import Job
from tests.integrations.flamenco_farm import BRIDGE, Farm
from tests.programs.external_programs import needs

pytestmark = needs("mosquitto")


def test_messages_about_something_else_are_logged_and_ignored(farm: Farm) -> None:
    job = farm.submit()
    names: list[Any] = ["../../x", "..", "", "flamenco", "A" * 36, f"{job}/../x", f"{job}\n", [job], None, {}]
    for name in names:
        farm.announce(job, id=name)
    farm.announce(job)
    farm.wait_for(job, status="queued")
    farm.wait_for_log("is no id of a job", len(names))
    assert {path.name for path in farm.folder.iterdir()} <= {"jobs", "storage", "bridge.log", "secret"}


def test_messages_that_are_not_from_flamenco_are_logged_and_ignored(farm: Farm) -> None:
    job = farm.submit()
    payloads = ["", "{", "[]", "3", "{}", "[" * 100_000, "\xff"]
    before = farm.log.read_text().count("ERROR a message")
    for payload in payloads:
        farm.broker.publish("flamenco/jobs", payload)
    farm.announce(job)
    farm.wait_for(job, status="queued")
    farm.wait_for_log("ERROR a message", before + len(payloads))


def test_message_about_a_job_of_another_program_changes_nothing(farm: Farm) -> None:
    job = Job.create(farm.folder / "jobs", owner="acme")
    farm.broker.publish("flamenco/jobs", json.dumps({"id": job.id, "was_deleted": True}))
    other = farm.submit()
    farm.announce(other)
    farm.wait_for(other, status="queued")
    farm.change(other, "active", "active")
    farm.announce(other)
    farm.wait_for(other, status="rendering")
    assert farm.record(job.id)["status"] == "queued"


def test_outputs_outside_of_the_storage_are_not_taken(farm: Farm) -> None:
    secret = farm.folder / "secret"
    secret.mkdir(exist_ok=True)
    (secret / "000001.png").write_bytes(b"secret")
    (farm.folder / "storage" / "link").symlink_to(secret)
    jobs = []
    paths = [f"{secret}/", "{render}/../secret/", "{render}/link/", "{render}\\..\\secret\\"]
    for path in paths:
        job = farm.submit()
        farm.manager.jobs[job]["settings"]["render_output_path"] = f"{path}######"
        jobs.append(job)
    linked = farm.submit()
    (farm.folder / "storage" / linked).mkdir()
    (farm.folder / "storage" / linked / "000001.png").symlink_to(secret / "000001.png")
    for job in (*jobs, linked):
        farm.change(job, "completed", *["completed"] * 4)
        farm.announce(job)
    farm.wait_for_log("is not below --storage", len(jobs))
    farm.wait_for_log(f"{linked} has no frames")
    for job in (*jobs, linked):
        assert farm.record(job)["status"] == "queued"
        assert sorted(path.name for path in (farm.folder / "jobs" / job).iterdir()) == ["status.json"]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Return a function that imports a module of the bridge; outputs are soon stable."""
    monkeypatch.setattr(farm_module, "STABLE_S", 0.02)
    monkeypatch.setattr(farm_module, "OUTPUT_TIMEOUT_S", 15)
    monkeypatch.syspath_prepend(BRIDGE.parent)
    return importlib.import_module


def test_job_with_an_empty_frame_fails_once(
    load: Callable[[str], ModuleType], tmp_path: Path, own_farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(farm_module, "OUTPUT_TIMEOUT_S", 0.1)
    job = own_farm.submit()
    (own_farm.render(job) / "000002.png").write_bytes(b"")
    own_farm.change(job, "completed", *["completed"] * 4)
    options = Namespace(
        jobs_root=tmp_path / "jobs",
        manager=f"http://127.0.0.1:{own_farm.manager.server_port}",
        storage=[("{render}", tmp_path / "storage")],
        owner="acme",
        owner_key=None,
        catch_up=24,
    )
    bridge = load("jobsvc_flamenco").Bridge(options)
    bridge.request_changed()
    bridge.update(bridge.requests.get())
    record = own_farm.wait_for(job, status="failed", error="output/######.png: 000002.png is empty")
    bridge.request_changed()
    assert bridge.requests.empty()
    assert own_farm.record(job) == record


@pytest.mark.parametrize(
    ("path", "frames", "files", "expected"),
    [
        ("shot_####", "7", ["shot_0007.png", "shot_7.png", "title-7.mp4"], ["shot_####.png", "title-7.mp4"]),
        ("####_v#", "1-2", ["####_v1.png", "0001_v1.png"], ["_____v#.png"]),
        ("beauty.", "1,5-9", ["beauty.0009.png", "title-1-9.mp4"], ["beauty.####.png", "title-1-9.mp4"]),
        (".##-a@$F", "-1", [".-01-a@$F.png"], ["_##-a__F.png"]),
    ],
)
def test_names_of_frames_and_film(
    load: Callable[[str], ModuleType],
    tmp_path: Path,
    path: str,
    frames: str,
    files: list[str],
    expected: list[str],
) -> None:
    storage = tmp_path / "storage"
    storage.mkdir()
    (tmp_path / "jobs").mkdir()
    for name in files:
        (storage / name).write_bytes(b"image")
    settings = {
        "render_output_path": f"R:\\out\\{path}", "image_file_extension": ".png",
        "blendfile": "/srv/title.flamenco.blend", "frames": frames,
    }  # fmt: skip
    job = Job.create(tmp_path / "jobs", owner="acme", job_id="title")
    load("flamenco_outputs").add_outputs(job, [("{other}", tmp_path), ("R:/out", storage)], settings)
    job.complete()
    record = json.loads((job.path / "status.json").read_bytes())
    assert [output["path"] for output in record["outputs"]] == [f"output/{name}" for name in expected]


def test_files_of_another_file_system_are_copied(
    load: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(*_: object, **__: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", link)
    (tmp_path / "0001.png").write_bytes(b"image")
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        load("flamenco_outputs")._link_or_copy("0001.png", folder, tmp_path / "copy.png")
    finally:
        os.close(folder)
    assert (tmp_path / "copy.png").read_bytes() == b"image"
    assert not (tmp_path / "copy.png").samefile(tmp_path / "0001.png")
