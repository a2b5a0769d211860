"""A job that was not completed has a next attempt, whatever the last one has left."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobsvc.farm import Job, JobError
from tests.farm.conftest import Read
from tests.farm.test_job import OUTPUT, create, render


def test_attempts_are_counted(jobs_root: Path, read: Read) -> None:
    create(jobs_root).fail("disk full")
    created_at = read()["createdAt"]
    create(jobs_root)
    record = read()
    assert (record["status"], record["attempt"], record["createdAt"]) == ("queued", 2, created_at)
    assert "error" not in record


def test_next_attempt_keeps_what_it_is_not_told(jobs_root: Path, read: Read) -> None:
    create(jobs_root, project="title.blend", metadata={"shot": "op_0010"}).cancel()
    Job.create(jobs_root, owner="acme", job_id="title")
    record = read()
    assert (record["projectPath"], record["outputPath"], record["metadata"]) == (
        "title.blend", OUTPUT, {"shot": "op_0010"},
    )  # fmt: skip


def test_each_attempt_has_a_log_of_its_own(jobs_root: Path) -> None:
    first = create(jobs_root)
    first.log("first")
    first.fail("disk full")
    second = create(jobs_root)
    second.log("second")
    assert (second.path / "render.log").read_text() == "second\n"
    assert (second.path / "render.1.log").read_text() == "first\n"


def test_outputs_of_an_attempt_do_not_complete_the_next(jobs_root: Path) -> None:
    first = create(jobs_root, output="output/beauty.####.exr")
    first.add_output("preview", "output/preview.jpg")
    render(first, "output/beauty.0001.exr")
    render(first, "output/preview.jpg")
    render(first, "output/notes.txt")
    second = create(jobs_root, output="output/beauty.####.exr")
    assert [path.name for path in (second.path / "output").iterdir()] == ["notes.txt"]


def test_outputs_are_kept_if_asked_for(jobs_root: Path) -> None:
    render(create(jobs_root))
    with create(jobs_root, keep_outputs=True) as second:
        pass
    assert second.status == "completed"


def test_directory_elsewhere_is_never_emptied(jobs_root: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "renders"
    elsewhere.mkdir()
    (elsewhere / "of-another-job.exr").write_bytes(b"film")
    create(jobs_root, output=f"{elsewhere}/")
    create(jobs_root, output=f"{elsewhere}/")
    (jobs_root / "title" / "linked").symlink_to(elsewhere)
    create(jobs_root, output="linked/")
    create(jobs_root, output="linked/")
    assert (elsewhere / "of-another-job.exr").exists()


def test_completed_job_is_rendered_again_only_if_asked_for(jobs_root: Path, read: Read) -> None:
    with create(jobs_root) as job:
        render(job)
    with pytest.raises(JobError, match="is completed: use another job id, or --restart"):
        create(jobs_root)
    assert read()["status"] == "completed"
    create(jobs_root, restart=True)
    assert (read()["status"], read()["attempt"]) == ("queued", 2)
    assert not (jobs_root / "title" / OUTPUT).exists()


def test_job_of_another_owner_is_left_alone(jobs_root: Path, read: Read) -> None:
    create(jobs_root)
    with pytest.raises(JobError, match="belongs to 'acme'"):
        create(jobs_root, owner="other")
    assert read()["attempt"] == 1


def test_older_attempt_writes_no_more(jobs_root: Path, read: Read) -> None:
    old = create(jobs_root)
    old.progress(50)
    create(jobs_root)
    with pytest.raises(JobError, match="attempt 2 has begun"):
        old.progress(60)
    assert (read()["status"], read()["attempt"]) == ("queued", 2)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"status": 3}', b"\xff"])
def test_broken_record_is_replaced(jobs_root: Path, read: Read, text: bytes) -> None:
    (jobs_root / "title").mkdir()
    (jobs_root / "title" / "status.json").write_bytes(text)
    (jobs_root / "title" / ".status.77.1").write_bytes(b"{")
    create(jobs_root)
    assert (read()["status"], read()["attempt"]) == ("queued", 1)
    assert not list((jobs_root / "title").glob(".status.*"))
