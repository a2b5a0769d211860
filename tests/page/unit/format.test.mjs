import assert from "node:assert/strict";
import { test } from "node:test";

import { formatAge, formatDuration, formatSize } from "../../../jobsvc/web/page/format.js";

test("sizes are in decimal units, with a digit after the point if it says something", () => {
  const sizes = [0, 999, 1000, 1500000, 9949999, 123456789, 4.2e12].map(formatSize);
  assert.deepEqual(sizes, ["0 B", "999 B", "1.0 kB", "1.5 MB", "9.9 MB", "123 MB", "4.2 TB"]);
});

test("durations have at most two units", () => {
  const durations = [0, 59.4, 60, 61, 600, 3725, 172800, 90000 * 40].map(formatDuration);
  assert.deepEqual(durations, ["0 s", "59 s", "1 min", "1 min 1 s", "10 min", "1 h 2 min", "2 d", "41 d"]);
});

test("a clock that is behind the service's says now", () => {
  const time = "2026-01-01T00:00:10Z";
  assert.equal(formatAge(time, Date.parse("2026-01-01T00:00:00Z")), "now");
  assert.equal(formatAge(time, Date.parse("2026-01-01T00:04:10Z")), "4 min ago");
});
