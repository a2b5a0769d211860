"""No file is served that the record of a job does not cover, whatever is requested and swapped meanwhile.

The suite sends some 2,000 requests; JOBSVC_TEST_ATTEMPTS=100000 sends that many.
"""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.index.service_thread import UNLIMITED, ServiceThread
from tests.web.outputs.path_safety.hostile_targets import PLAIN, Client, Recipe, a_recipe, get
from tests.web.outputs.path_safety.path_check import Check
from tests.web.outputs.path_safety.random_trees import (
    OTHER_OWNER,
    OWNER,
    Entry,
    Roots,
    Tree,
    some_entries,
    some_outputs,
)
from tests.web.outputs.path_safety.swaps import make_decoy, remove, some_swaps, swapping

REQUESTED_ATTEMPTS: Final = int(os.environ.get("JOBSVC_TEST_ATTEMPTS", "2000"))
ATTEMPTS_PER_TREE: Final = 100
WHOLE: Final = ("files", "files", "archive.tar", "archive.zip", "download")


class Attempts:
    """Sends requests about trees to one service, and checks the responses."""

    def __init__(self, service: ServiceThread, roots: Roots) -> None:
        self._service = service
        self._token = service.token(OWNER)
        self._roots = roots
        self.trees = 0
        self.requests = 0
        self.swapped = 0
        """Requests that were sent while something was swapped."""
        self.served = 0
        """Responses with bytes of files."""

    def attempt(
        self,
        entries: list[Entry],
        outputs: list[tuple[str, str | None]],
        swaps: list[tuple[str, str, str]],
        recipes: list[Recipe],
        seed: int,
    ) -> None:
        """Make a tree, request all of it, then more than that, while some of it is swapped."""
        self.trees += 1
        tree = Tree(self._roots, self.trees)
        try:
            tree.fill(entries, outputs)
            decoys = [
                decoy
                for number, (place, path, kind) in enumerate(swaps)
                if (decoy := make_decoy(tree, tree.place(place) / path, number, kind=kind)) is not None
            ]
            check = Check(tree, is_swapped=bool(decoys))
            with Client(self._service.port) as client:
                self._request_each(client, check, f"/api/jobs/{tree.job_id}")
                with swapping(decoys, seed) if decoys else nullcontext():
                    requests = self._requests(tree, check, recipes, seed)
                    self.swapped += len(requests) if decoys else 0
                    self._send(client, check, requests)
        finally:
            remove(tree)

    def _request_each(self, client: Client, check: Check, job: str) -> None:
        """Request the list, the archives, and each file in them, while nothing is swapped."""
        whole = [get(self._token, f"{job}/{name}") for name in ("files", "archive.tar", "archive.zip")]
        (_, page), *archives = client.answers(whole)
        files = check.listed(page)
        for _, archive in archives:
            check.archive(archive)
        targets = [urlsplit(file["downloadUrl"]) for file in files]
        requests = [get(self._token, f"{target.path}?{target.query}") for target in targets]
        for number, answer in client.answers(requests):
            expected = check.files[files[number]["output"], files[number]["path"]]
            assert (answer.status, answer.body) == (200, expected), (requests[number], answer)
        self.requests += len(requests)
        self.served += len(requests)

    def _requests(self, tree: Tree, check: Check, recipes: list[Recipe], seed: int) -> list[bytes]:
        """Return requests for files in other spellings, and for files and links in the plain one."""
        draw = random.Random(seed)  # noqa: S311 - no secret
        names = {"job": tree.job_id, "other": tree.other_id}
        requests = [get(self._token, f"/api/jobs/{job}/{name}") for job in names.values() for name in WHOLE]
        covered, linked = list(check.files) or [("o0", "x")], [*tree.links, *tree.contents]
        while len(requests) < ATTEMPTS_PER_TREE:
            recipe, output = draw.choice((PLAIN, draw.choice(recipes))), draw.choice(tree.outputs)
            name, path = output["name"], draw.choice(tree.paths(output, draw.choice(linked)))
            if draw.randrange(3) == 0:
                recipe, (name, path) = PLAIN, draw.choice(covered)
            requests.append(recipe.request(self._token, path, output=name, **names))
        draw.shuffle(requests)
        return requests

    def _send(self, client: Client, check: Check, requests: list[bytes]) -> None:
        for number, answer in client.answers(requests):
            self.served += check.answer(answer, requests[number])
        self.requests += len(requests)


@pytest.fixture
def attempts(tmp_path: Path, treat_new_files_as_stable: None) -> Iterator[Attempts]:
    roots = Roots.make(tmp_path.resolve())
    (tmp_path / "state").mkdir(mode=0o700)
    service = ServiceThread(
        tmp_path / "jobs",
        tmp_path / "state",
        (OWNER, OTHER_OWNER),
        watch="poll",
        output_roots=roots.settings(),
        limit_files=UNLIMITED,
    )
    yield Attempts(service, roots)
    service.close()


@pytest.mark.timeout(REQUESTED_ATTEMPTS // 50 + 120)
def test_no_file_is_served_that_the_record_does_not_cover(attempts: Attempts) -> None:
    @settings(
        max_examples=REQUESTED_ATTEMPTS // ATTEMPTS_PER_TREE,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(
        some_entries,
        some_outputs,
        some_swaps,
        st.lists(a_recipe, min_size=1, max_size=12),
        st.integers(0, 2**32),
    )
    def attempt(
        entries: list[Entry],
        outputs: list[tuple[str, str | None]],
        swaps: list[tuple[str, str, str]],
        recipes: list[Recipe],
        seed: int,
    ) -> None:
        attempts.attempt(entries, outputs, swaps, recipes, seed)

    while attempts.requests < REQUESTED_ATTEMPTS:
        attempt()
    figures = vars(attempts).items()
    logging.getLogger(__name__).info("%s", {name: value for name, value in figures if isinstance(value, int)})
    assert attempts.served > attempts.requests // 10
