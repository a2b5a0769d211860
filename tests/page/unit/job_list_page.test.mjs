import assert from "node:assert/strict";
import { test } from "node:test";

import { searchJobs, selectJobs } from "../../../jobsvc/web/page/jobs/job_list_page.js";

const JOBS = [
  { id: "a", status: "failed", text: "a\naurora comp" },
  { id: "b", status: "rendering", stalled: true, text: "b\naurora fx" },
  { id: "c", status: "rendering", text: "c\nkettle comp" },
];
const ids = (jobs) => jobs.map(({ id }) => id);

test("without text and kinds all jobs are shown, in their order", () => {
  assert.deepEqual(ids(selectJobs(searchJobs(JOBS, ""), [])), ["a", "b", "c"]);
});

test("states are alternatives", () => {
  assert.deepEqual(ids(selectJobs(JOBS, ["rendering"])), ["b", "c"]);
  assert.deepEqual(ids(selectJobs(JOBS, ["failed", "rendering"])), ["a", "b", "c"]);
});

test("stalled jobs can be shown alone, and beside those of a state", () => {
  assert.deepEqual(ids(selectJobs(JOBS, ["stalled"])), ["b"]);
  assert.deepEqual(ids(selectJobs(JOBS, ["failed", "stalled"])), ["a", "b"]);
});

test("every word has to be there, in any case and anywhere", () => {
  assert.deepEqual(ids(searchJobs(JOBS, " COMP  aur")), ["a"]);
});
