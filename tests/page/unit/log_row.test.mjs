import assert from "node:assert/strict";
import { test } from "node:test";

import { countRows } from "../../../jobsvc/web/page/log/log_row.js";

const encode = (text) => new TextEncoder().encode(text);

test("rows of a wrapped line: never fewer than it takes", () => {
  assert.equal(countRows(encode("\n"), 10), 1);
  assert.equal(countRows(encode(`${"x".repeat(20)}\n`), 10), 2);
  assert.equal(countRows(encode(`\x1b[31m${"x".repeat(10)}\x1b[0m\n`), 10), 1);
  assert.equal(countRows(encode("漢".repeat(10)), 10), 2);
  assert.equal(countRows(encode(`50 %\r${"x".repeat(10)}`), 10), 1);
  assert.equal(countRows(encode("a\tb"), 10), 1);
  assert.equal(countRows(encode("a\tb\tc"), 10), 2);
});

test("a line that is not wrapped is one row", () => {
  assert.equal(countRows(encode("x".repeat(1_000_000)), Infinity), 1);
});
