"""The bridge from Flamenco, with a real broker; its messages and its Manager are imitated."""

from __future__ import annotations

import importlib
import json
import os
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from jobsvc import farm as farm_module
from jobsvc.farm import Job
from tests.integrations.flamenco_farm import BRIDGE, IMAGE, Farm, flamenco_farm
from tests.programs.external_programs import needs
from tests.programs.mosquitto import Mosquitto, mosquitto

pytestmark = needs("mosquitto")


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


def test_job_is_queued_rendered_and_completed_with_its_frames(farm: Farm) -> None:
    job = farm.submit()
    farm.announce(job)
    record = farm.wait_for(job, status="queued")
    assert (record["owner"], record["projectPath"]) == ("acme", "{render}/title.flamenco.blend")
    assert record["metadata"]["project"] == "Aurora"
    assert record["metadata"]["flamenco"]["name"] == "Title"
    farm.change(job, "active", "active", "active")
    farm.announce(job, previous_status="queued")
    farm.wait_for(job, status="rendering", progress=0, phase="render-1 and 1 more")
    for done in (1, 3):
        farm.change(job, "active", *["completed"] * done, "active")
        farm.announce_task(job)
        farm.wait_for(job, progress=25 * done, phase=f"render-{done + 1}")
    rendered = farm.render(job)
    farm.announce_image(job)
    farm.change(job, "completed", *["completed"] * 4)
    farm.announce(job)
    record = farm.wait_for(job, status="completed", progress=100, attempt=1)
    assert record["outputs"] == [
        {"name": "frames", "path": "output/######.png", "role": "main"},
        {"name": "preview", "path": "output/title-1-4.mp4", "role": "preview"},
        {"name": "thumbnail", "path": "thumbnail.jpg", "role": "thumbnail"},
    ]
    folder = farm.folder / "jobs" / job
    assert sorted(file.name for file in (folder / "output").iterdir()) == sorted(
        file.name for file in rendered.iterdir()
    )
    assert (folder / "output" / "000004.png").samefile(rendered / "000004.png")
    assert (folder / "thumbnail.jpg").read_bytes() == IMAGE


def test_failed_job_says_which_task_failed_and_why(farm: Farm) -> None:
    job = farm.submit()
    farm.change(job, "failed", "completed", "failed", activity="Failed: exit status 1")
    farm.announce(job)
    record = farm.wait_for(job, status="failed")
    assert record["error"] == "render-2: Failed: exit status 1 (1 of 4 tasks have failed)"


def test_canceled_job_that_had_begun_before_the_first_message(farm: Farm) -> None:
    job = farm.submit()
    farm.change(job, "cancel-requested", "completed")
    farm.announce(job)
    farm.wait_for(job, status="rendering", progress=25, phase="cancel-requested")
    farm.change(job, "canceled", "completed")
    farm.announce(job)
    farm.wait_for(job, status="canceled")


def test_paused_job_is_queued_until_it_begins_and_rendering_afterwards(farm: Farm) -> None:
    job = farm.submit(status="paused")
    farm.announce(job)
    farm.wait_for(job, status="queued")
    farm.change(job, "active", "active")
    farm.announce(job)
    farm.wait_for(job, status="rendering")
    farm.change(job, "paused", "completed")
    farm.announce(job)
    farm.wait_for(job, status="rendering", phase="paused")


def test_requeued_job_has_a_second_attempt(farm: Farm) -> None:
    job = farm.submit()
    farm.render(job)
    farm.change(job, "completed", *["completed"] * 4)
    farm.announce(job)
    farm.wait_for(job, status="completed")
    farm.change(job, "requeueing")
    farm.announce(job)
    farm.wait_for(job, status="queued", attempt=2)
    farm.change(job, "completed", *["completed"] * 4)
    farm.announce(job)
    farm.wait_for(job, status="completed", attempt=2)
    assert (farm.folder / "storage" / job / "000001.png").read_bytes() == b"000001.png"


def test_repeated_and_late_messages_change_nothing(farm: Farm) -> None:
    job = farm.submit()
    queued = farm.job_update(job)
    farm.change(job, "active", "completed", "active")
    active = farm.job_update(job, previous_status="queued")
    farm.render(job)
    farm.change(job, "completed", *["completed"] * 4)
    for update in (active, queued, active):
        farm.broker.publish("flamenco/jobs", update)
    record = farm.wait_for(job, status="completed", attempt=1)
    last = farm.submit()
    for update in (active, queued, farm.job_update(job)):
        farm.broker.publish("flamenco/jobs", update)
        farm.announce_task(job)
    farm.announce(last)
    farm.wait_for(last, status="queued")
    assert farm.record(job) == record


def test_job_deleted_in_flamenco_is_canceled(farm: Farm) -> None:
    job = farm.submit()
    farm.announce(job)
    farm.wait_for(job, status="queued")
    update = farm.job_update(job, was_deleted=True)
    del farm.manager.jobs[job]
    farm.broker.publish("flamenco/jobs", update)
    farm.wait_for(job, status="canceled")


def test_progress_without_steps_is_that_of_the_tasks(farm: Farm) -> None:
    job = farm.submit()
    for task in farm.manager.tasks[job]:
        del task["steps_total"], task["steps_completed"]
    farm.change(job, "active", "completed", "completed", "completed", "active")
    farm.announce(job)
    farm.wait_for(job, progress=75)


def test_owner_is_taken_from_the_metadata_of_the_job(farm: Farm) -> None:
    job = farm.submit(metadata={"client": "anna"})
    farm.announce(job)
    farm.wait_for(job, owner="anna")


def test_completed_job_of_an_unknown_type_has_no_outputs(farm: Farm) -> None:
    job = farm.submit(settings={"message": "hello"})
    farm.change(job, "completed", *["completed"] * 4)
    farm.announce(job)
    assert "outputs" not in farm.wait_for(job, status="completed")


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


def test_broker_is_restarted_and_messages_are_lost(own_farm: Farm) -> None:
    job, others = own_farm.submit(), own_farm.submit()
    own_farm.start()
    own_farm.wait_for(job, status="queued")
    own_farm.broker.kill()
    own_farm.wait_for_log("disconnected")
    own_farm.change(job, "canceled")
    own_farm.broker.start()
    own_farm.wait_for(job, status="canceled")
    own_farm.change(others, "active", "active")
    own_farm.announce(others)
    own_farm.wait_for(others, status="rendering")


def test_jobs_are_written_while_there_is_no_broker(own_farm: Farm) -> None:
    job = own_farm.submit()
    own_farm.broker.kill()
    own_farm.start("--refresh", "0.1", until="no connection")
    own_farm.wait_for(job, status="queued")
    own_farm.change(job, "active", "active")
    own_farm.wait_for(job, status="rendering")
    own_farm.broker.start()
    own_farm.wait_for_log("connection: Success")


def test_bridge_catches_up_after_it_was_away(own_farm: Farm) -> None:
    old, job, deleted = own_farm.submit(), own_farm.submit(), own_farm.submit()
    own_farm.manager.jobs[old].update(status="completed", updated="2024-04-16T12:00:00.123456789+02:00")
    own_farm.start("--refresh", "0.1")
    own_farm.wait_for(job, status="queued")
    own_farm.wait_for(deleted, status="queued")
    del own_farm.manager.jobs[deleted]
    own_farm.wait_for(deleted, status="canceled")
    own_farm.stop()
    own_farm.change(job, "active", "completed", "active")
    new = own_farm.submit()
    own_farm.change(new, "completed", *["completed"] * 4)
    own_farm.start("--refresh", "0.1")
    own_farm.wait_for(job, status="rendering", progress=25, attempt=1)
    own_farm.wait_for_log(f"No such file or directory: '{own_farm.folder}/storage/{new}'")
    own_farm.render(new)
    own_farm.wait_for(new, status="completed", attempt=1)
    assert not (own_farm.folder / "jobs" / old).exists()


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Return a function that imports a module of the bridge; waits for outputs are short."""
    monkeypatch.setattr(farm_module, "STABLE_S", 0.02)
    monkeypatch.setattr(farm_module, "OUTPUT_TIMEOUT_S", 0.2)
    monkeypatch.syspath_prepend(BRIDGE.parent)
    return importlib.import_module


def test_job_with_an_empty_frame_fails_once(
    load: Callable[[str], ModuleType], tmp_path: Path, own_farm: Farm
) -> None:
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
