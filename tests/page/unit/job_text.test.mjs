import assert from "node:assert/strict";
import { test } from "node:test";

import * as page from "../../../jobsvc/web/page/job/job_page.js";

const NOW = Date.parse("2026-01-01T12:00:00Z");

function at(time) {
  return `2026-01-01T${time}Z`;
}

test("a finished job says when, and how long it took", () => {
  const times = { done: true, progress: 100, updatedAt: at("11:30:00"), startedAt: at("10:00:00"), completedAt: at("11:00:00") };
  assert.equal(page.summary({ status: "completed", ...times }, NOW), "1 h ago, took 1 h, 100 %");
  assert.equal(page.summary({ status: "failed", ...times, progress: 0 }, NOW), "1 h ago, after 1 h, 0 %");
  assert.equal(page.summary({ status: "failed", done: true, progress: 5, updatedAt: at("11:30:00") }, NOW), "30 min ago, 5 %");
});

test("a job in progress says for how long, and when it ends", () => {
  const job = { status: "rendering", progress: 5, createdAt: at("10:00:00"), startedAt: at("11:00:00") };
  assert.equal(page.summary(job, NOW), "for 1 h, 5 %");
  assert.equal(page.summary({ ...job, estimatedCompletionAt: at("12:20:00") }, NOW), "for 1 h, ends in 20 min, 5 %");
  assert.equal(page.summary({ ...job, estimatedCompletionAt: at("11:45:00") }, NOW), "for 1 h, ends any moment, 5 %");
  assert.equal(page.summary({ status: "queued", progress: 0, createdAt: at("10:00:00") }, NOW), "for 2 h, 0 %");
});

test("progress is never rounded up", () => {
  const job = { status: "queued", createdAt: at("10:00:00") };
  assert.equal(page.summary({ ...job, progress: 99.97 }, NOW), "for 2 h, 99 %");
  assert.equal(page.summary({ ...job, progress: 42, framesDone: 105, framesTotal: 250 }, NOW), "for 2 h, 42 %, 105 / 250 frames");
  assert.equal(page.summary({ ...job, progress: 0, framesDone: 0 }, NOW), "for 2 h, 0 %, 0 frames");
});

test("values of the farm are text, and long ones are cut", () => {
  const values = ["a\nb", 1.5, null, [640, 360], { a: ["x, y"], b: {} }].map(page.valueText);
  assert.deepEqual(values, ["a\nb", "1.5", "null", "[640,360]", '{"a":["x, y"],"b":{}}']);
  assert.match(page.valueText("W".repeat(1e6)), /^W{2000}… \(1.0 MB\)$/);
});
