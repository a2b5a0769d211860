import assert from "node:assert/strict";
import { test } from "node:test";

import { rowKeys, rowsToRender } from "../../../jobsvc/web/page/jobs/job_table.js";

test("rows above and below the window are rendered too, so that scrolling shows no gap", () => {
  assert.deepEqual(rowsToRender(400, 50, 10_000), [394, 456]);
});

test("the list starts and ends with its first and last row", () => {
  assert.deepEqual(rowsToRender(0, 50, 10_000), [0, 62]);
  assert.deepEqual(rowsToRender(9990, 50, 10_000), [9938, 10_000]);
});

test("a short list is rendered completely", () => {
  assert.deepEqual(rowsToRender(-3, 50, 12), [0, 12]);
});

test("a list that has become shorter while scrolled far down shows its end", () => {
  assert.deepEqual(rowsToRender(9000, 50, 100), [38, 100]);
});

const keysOf = (ids, before = new Map()) => rowKeys(ids.map((id) => ({ id })), before);

test("jobs keep their rows, wherever they move", () => {
  const before = keysOf(["a", "b", "c"]);
  const after = keysOf(["new", "a", "b"], before);
  assert.deepEqual([after.get("a"), after.get("b")], [before.get("a"), before.get("b")]);
});

test("jobs that come get the rows of those that go, in their order", () => {
  const before = keysOf(["a", "b", "c"]);
  assert.deepEqual([...keysOf(["c", "d", "e"], before).values()], [before.get("c"), before.get("a"), before.get("b")]);
});

test("no two jobs have the same row", () => {
  const after = keysOf(["e", "b", "f", "g", "h"], keysOf(["a", "b", "c"]));
  assert.equal(new Set(after.values()).size, 5);
});
