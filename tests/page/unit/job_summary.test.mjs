import assert from "node:assert/strict";
import { test } from "node:test";

import { byAge, summarize } from "../../../jobsvc/web/page/jobs/job_summary.js";

const JOB = { id: "Shot-1", status: "rendering", progress: 4, createdAt: "2026-11-22T10:00:00+09:00" };

test("a job without optional fields has a summary", () => {
  const { id, status, created, text } = summarize(JOB);
  assert.deepEqual({ id, status, created, text }, { id: "Shot-1", status: "rendering", created: Date.parse("2026-11-22T01:00:00Z"), text: "shot-1" });
});

test("owner, project, phase, error and metadata can be searched, in lower case", () => {
  const { text } = summarize({ ...JOB, owner: "Acme", projectPath: "P/x", phase: "Ph", error: "ERR", metadata: { artist: ["Ünal", 7] } });
  assert.equal(text, 'shot-1\nacme\np/x\nph\nerr\n{"artist":["ünal",7]}');
});

test("the size of a summary is bounded", () => {
  const long = "x".repeat(1_000_000);
  const summary = summarize({ ...JOB, phase: long, error: long, metadata: { long }, outputPath: long });
  assert.ok(JSON.stringify(summary).length < 4000);
});

test("the order is that of the API: newest first, whatever the zone, then by id", () => {
  const jobs = [
    { ...JOB, id: "c" },
    { ...JOB, id: "b", createdAt: "2026-11-22T01:00:00Z" },
    { ...JOB, id: "a", createdAt: "2026-11-22T00:59:59Z" },
    { ...JOB, id: "d", createdAt: "2026-11-22T01:00:00.500Z" },
  ];
  assert.deepEqual(jobs.map(summarize).sort(byAge).map(({ id }) => id), ["d", "b", "c", "a"]);
});
