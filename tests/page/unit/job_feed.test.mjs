import assert from "node:assert/strict";
import { test } from "node:test";

globalThis.addEventListener = () => {};
const { byAge } = await import("../../../jobsvc/web/page/jobs/job_feed.js");
const { summarize } = await import("../../../jobsvc/web/page/jobs/job_stream.js");

const JOB = { status: "rendering", createdAt: "2026-11-22T10:00:00+09:00" };

test("the order is that of the API: newest first, whatever the zone, then by id", () => {
  const jobs = [
    { ...JOB, id: "c" },
    { ...JOB, id: "b", createdAt: "2026-11-22T01:00:00Z" },
    { ...JOB, id: "a", createdAt: "2026-11-22T00:59:59Z" },
    { ...JOB, id: "d", createdAt: "2026-11-22T01:00:00.500Z" },
  ];
  assert.deepEqual(jobs.map(summarize).sort(byAge).map(({ id }) => id), ["d", "b", "c", "a"]);
});
