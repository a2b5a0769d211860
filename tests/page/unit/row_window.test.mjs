import assert from "node:assert/strict";
import { test } from "node:test";

import { rowsToRender } from "../../../jobsvc/web/page/jobs/row_window.js";

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
