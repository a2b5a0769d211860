import assert from "node:assert/strict";
import { test } from "node:test";

import { endText, framesText } from "../../../jobsvc/web/page/jobs/job_row.js";

const NOW = Date.parse("2026-11-22T10:00:00Z");
const TIMES = { startedAt: "2026-11-22T09:00:00Z", completedAt: "2026-11-22T09:02:30Z" };

test("a final job says how long it took", () => {
  assert.equal(endText({ status: "completed", ...TIMES }, NOW), "took 2 min 30 s");
  assert.equal(endText({ status: "failed", ...TIMES }, NOW), "after 2 min 30 s");
});

test("a job says when it ends, if that is known", () => {
  const job = { status: "rendering", startedAt: TIMES.startedAt };
  assert.equal(endText({ ...job, estimatedCompletionAt: "2026-11-22T10:12:00Z" }, NOW), "in 12 min");
  assert.equal(endText({ ...job, estimatedCompletionAt: "2026-11-22T09:59:00Z" }, NOW), "any moment");
  assert.equal(endText(job, NOW), "");
  assert.equal(endText({ status: "queued", estimatedCompletionAt: "2026-11-22T10:12:00Z" }, NOW), "");
});

test("frames are shown as far as they are known", () => {
  const texts = [{ framesDone: 3, framesTotal: 9 }, { framesTotal: 9 }, { framesDone: 3 }, {}].map(framesText);
  assert.deepEqual(texts, ["3 / 9", "0 / 9", 3, ""]);
});
