"""The bridge from Flamenco, with a real broker; its messages and its Manager are imitated."""

from __future__ import annotations

from tests.integrations.flamenco_farm import IMAGE, Farm
from tests.programs.external_programs import needs

pytestmark = needs("mosquitto")


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


def test_job_is_not_canceled_by_a_proxy_that_does_not_find_it(own_farm: Farm) -> None:
    job = own_farm.submit()
    own_farm.start()
    own_farm.wait_for(job, status="queued")
    update, own_farm.manager.error = own_farm.job_update(job), b"<h1>Not Found</h1>"
    source = own_farm.manager.jobs.pop(job)
    own_farm.broker.publish("flamenco/jobs", update)
    own_farm.wait_for_log(f"ERROR {job}: HTTP Error 404")
    assert own_farm.record(job)["status"] == "queued"
    own_farm.manager.jobs[job] = source
    own_farm.change(job, "active", "active")
    own_farm.announce(job)
    own_farm.wait_for(job, status="rendering", attempt=1)


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


def test_bridge_catches_up_after_it_was_away_and_without_a_broker(own_farm: Farm) -> None:
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
    own_farm.broker.kill()
    own_farm.start("--refresh", "0.1", until="no connection")
    own_farm.wait_for(job, status="rendering", progress=25, attempt=1)
    own_farm.wait_for_log(f"No such file or directory: '{own_farm.folder}/storage/{new}'")
    own_farm.render(new)
    own_farm.wait_for(new, status="completed", attempt=1)
    assert not (own_farm.folder / "jobs" / old).exists()
    own_farm.broker.start()
    own_farm.wait_for_log("connection: Success", 2)
