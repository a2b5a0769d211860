"""Names of files below the directory of a sync."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

import pytest

from jobsvc.client.download.sync.plan import Action, NameTemplate, plan_files
from jobsvc.client.errors import DownloadError
from jobsvc.client.models import File

TIME: Final = datetime(2026, 1, 1, tzinfo=UTC)


def file(output: str, path: str, etag: str = '"1"') -> File:
    return File("job-1", output, path, None, 10, TIME, "image/x-exr", etag, None)


ONE: Final = [file("main", "a.exr"), file("main", "depth/b.exr")]
SEVERAL: Final = [file("main", "a.exr"), file("preview", "a.mp4")]


@pytest.mark.parametrize(
    ("template", "files", "expected"),
    [
        ("{id}/{path}", ONE, ["job-1/a.exr", "job-1/depth/b.exr"]),
        ("{id}/{path}", SEVERAL, ["job-1/main/a.exr", "job-1/preview/a.mp4"]),
        ("{path}", ONE, ["a.exr", "depth/b.exr"]),
        ("{id}/{output}/{path}", ONE, ["job-1/main/a.exr", "job-1/main/depth/b.exr"]),
        ("{id}/{output}/{path}", SEVERAL, ["job-1/main/a.exr", "job-1/preview/a.mp4"]),
        ("{output}/{id}-{path}", SEVERAL, ["main/job-1-a.exr", "preview/job-1-a.mp4"]),
    ],
)
def test_names_follow_the_template(template: str, files: list[File], expected: list[str]) -> None:
    assert NameTemplate(template).paths(files) == expected


def test_names_of_the_service_are_not_templates() -> None:
    assert NameTemplate("{id}/{path}").paths([file("main", "{id}")]) == ["job-1/{id}"]


@pytest.mark.parametrize(
    "template",
    [
        "",
        "{id}",
        "{id}/{file}",
        "{path",
        "{path}}",
        "{}/{path}",
        "/{path}",
        "../{path}",
        "a//{path}",
        "a\\{path}",
    ],
)
def test_template_that_is_invalid_or_leads_elsewhere_is_refused(template: str) -> None:
    with pytest.raises(DownloadError, match="is invalid"):
        NameTemplate(template)


@pytest.mark.parametrize(
    ("template", "separates"),
    [
        ("{id}/{path}", True),
        ("renders/{id}/{path}", True),
        ("{output}/{id}/{path}", True),
        ("{path}", False),
        ("{id}-{path}", False),
        ("{output}/{path}", False),
    ],
)
def test_id_as_a_directory_separates_jobs(template: str, *, separates: bool) -> None:
    assert NameTemplate(template).separates_jobs is separates


@pytest.mark.parametrize(
    ("known", "is_present", "expected"),
    [
        ({"a": '"1"'}, False, Action.NOTHING),
        ({"a": '"1"'}, True, Action.NOTHING),
        ({"a": '"0"'}, False, Action.DOWNLOAD),
        ({"a": '"0"'}, True, Action.COMPARE),
        ({}, False, Action.DOWNLOAD),
        ({}, True, Action.COMPARE),
    ],
)
def test_version_decides_what_is_done(known: dict[str, str], expected: Action, *, is_present: bool) -> None:
    (planned,) = plan_files([file("main", "a")], ["a"], known, lambda _file, _path: is_present)
    assert planned.action is expected
