import assert from "node:assert/strict";
import { test } from "node:test";

import { findLines, LogSearch } from "../../../jobsvc/web/page/log/log_search.js";

const encode = (text) => new TextEncoder().encode(text);

test("lines that contain the text are found once, by their offsets", () => {
  assert.deepEqual(findLines(encode("error error\nfine\nERROR\n\nno end error"), 100, "Error"), [100, 117, 124]);
  assert.deepEqual(findLines(encode("fine\n"), 0, "error"), []);
});

test("characters of patterns are only characters", () => {
  assert.deepEqual(findLines(encode("a.c\nabc\n(x[*\n\\d\n"), 0, "a.c"), [0]);
  assert.deepEqual(findLines(encode("a.c\nabc\n(x[*\n\\d\n"), 0, "(x[*"), [8]);
  assert.deepEqual(findLines(encode("a.c\nabc\n(x[*\n\\d\n"), 0, "\\d"), [13]);
});

test("text of any language is found", () => {
  assert.deepEqual(findLines(encode("漢字\nkana かな\n"), 0, "かな"), [7]);
  assert.deepEqual(findLines(encode("grün\n"), 0, "grün"), [0]);
});

test("colours within the text do not hide it, and their codes are not found", () => {
  assert.deepEqual(findLines(encode("\x1b[31mer\x1b[1mror\x1b[0m: x\n"), 0, "error: x"), [0]);
  assert.deepEqual(findLines(encode("\x1b[31mred\x1b[0m\n"), 0, "31"), []);
});

test("texts before a carriage return are not found", () => {
  assert.deepEqual(findLines(encode("10 %\r20 %\n"), 0, "10 %"), []);
});

test("an incomplete last line is searched again, and found once", () => {
  const search = new LogSearch("error", 0);
  search.addAfter(encode("error 1\nerr"));
  assert.deepEqual([search.lines, search.to], [[0], 8]);
  search.addAfter(encode("error 2"));
  search.addAfter(encode("error 2\nx\n"));
  assert.deepEqual([search.lines, search.to], [[0, 8], 18]);
});

test("what is found further back is counted too", () => {
  const search = new LogSearch("x", 100);
  search.addAfter(encode("x\ny\nx\n"));
  const before = new LogSearch("x", 90);
  before.addAfter(encode("x\n"));
  search.addBefore(before);
  assert.deepEqual([search.lines, search.from], [[90, 100, 104], 90]);
  assert.deepEqual([search.nearest(Infinity, -1), search.nearest(100, -1), search.nearest(90, -1)], [104, 90, undefined]);
  assert.deepEqual([search.nearest(90, 1), search.nearest(104, 1)], [100, undefined]);
});
