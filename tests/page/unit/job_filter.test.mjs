import assert from "node:assert/strict";
import { test } from "node:test";

import { filterJobs, filterParameters, parseFilter, toggleState } from "../../../jobsvc/web/page/jobs/job_filter.js";

const JOBS = [
  { id: "a", status: "failed", text: "a\naurora comp" },
  { id: "b", status: "rendering", stalled: true, text: "b\naurora fx" },
  { id: "c", status: "rendering", text: "c\nkettle comp" },
];
const ALL = { states: [], stalled: false, text: "" };
const ids = (filter) => filterJobs(JOBS, { ...ALL, ...filter }).shown.map(({ id }) => id);

test("a filter survives the address, without what it does not know", () => {
  const filter = parseFilter(new URLSearchParams("status=failed&status=nonsense&stalled=1&q=two+words"));
  assert.deepEqual(filter, { states: ["failed"], stalled: true, text: "two words" });
  assert.deepEqual(filterParameters(filter), { status: ["failed"], stalled: "1", q: "two words" });
});

test("without a filter all jobs are shown, in their order", () => {
  assert.deepEqual(ids({}), ["a", "b", "c"]);
});

test("states are alternatives", () => {
  assert.deepEqual(ids({ states: ["rendering"] }), ["b", "c"]);
  assert.deepEqual(ids({ states: ["failed", "rendering"] }), ["a", "b", "c"]);
});

test("stalled jobs can be shown alone", () => {
  assert.deepEqual(ids({ stalled: true }), ["b"]);
});

test("every word has to be there, in any case and anywhere", () => {
  assert.deepEqual(ids({ text: " COMP  aur" }), ["a"]);
});

test("counts are of the jobs that match the text, whatever states are shown", () => {
  const { counts } = filterJobs(JOBS, { states: ["failed"], stalled: false, text: "aurora" });
  assert.deepEqual(counts, { all: 2, stalled: 1, failed: 1, rendering: 1 });
});

test("a state is added in the order of states, and removed if it is there", () => {
  const both = toggleState({ ...ALL, states: ["failed"] }, "queued");
  assert.deepEqual(both.states, ["queued", "failed"]);
  assert.deepEqual(toggleState(both, "failed").states, ["queued"]);
});
