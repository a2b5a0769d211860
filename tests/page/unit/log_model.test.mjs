import assert from "node:assert/strict";
import { test } from "node:test";

import { LogModel } from "../../../jobsvc/web/page/log/log_model.js";

const encode = (text) => new TextEncoder().encode(text);
const decode = (bytes) => new TextDecoder().decode(bytes);
const LINE = `${"x".repeat(1023)}\n`;

/** Return a model that follows a log, which does not have to be read. */
function follower(values = {}) {
  const model = Object.assign(new LogModel("job", () => {}), { isLoaded: true, fill() {} }, values);
  const receive = (text) => model.receive(model.size, encode(text));
  return { model, receive };
}

test("bytes in pieces of any size are the same lines", () => {
  const text = "one\n\ntwo\r\nthree\n\n\ngrün";
  for (let size = 1; size < 9; size += 1) {
    const { model, receive } = follower();
    for (let at = 0; at < text.length; at += size) receive(text.slice(at, at + size));
    const lines = model.lines.map(({ number, bytes }) => [number, decode(bytes)]);
    const expected = ["one\n", "\n", "two\r\n", "three\n", "\n", "\n", "grün"].map((line, index) => [index + 1, line]);
    assert.deepEqual(lines, expected, `pieces of ${size}`);
  }
});

test("only the end of a log that is followed is in memory, with the numbers of its lines", () => {
  const { model, receive } = follower();
  for (let count = 0; count < 3000; count += 100) receive(LINE.repeat(100));
  assert.ok(model.bytes.length <= 1024 * 1024);
  assert.deepEqual([model.end, model.lines.at(-1).number], [3000 * 1024, 3000]);
  assert.equal(model.lines[0].number, model.lines[0].offset / 1024 + 1);
});

test("nothing near a reader who is further up is dropped, and new lines are counted", () => {
  const { model, receive } = follower();
  receive(LINE.repeat(100));
  model.anchor = { offset: 1024, rows: 0 };
  for (let count = 0; count < 3000; count += 100) receive(LINE.repeat(100));
  assert.deepEqual([model.start, model.lines[0].number, model.newLines], [0, 1, 3000]);
  assert.ok(model.bytes.length <= 1024 * 1024);
});

test("what is near the reader is read, unless enough of it is in memory", () => {
  const { model } = follower({ size: 5_000_000_000 });
  assert.deepEqual(model.missing, [5_000_000_000 - 256 * 1024, 5_000_000_000]);
  model.anchor = { offset: 1_000_000, rows: 0 };
  const [from, to] = model.missing;
  assert.ok(from < 1_000_000 && to > 1_000_000);
  model.hold(from, encode(LINE.repeat(512)));
  assert.equal(model.missing, null);
  assert.ok(Number.isNaN(model.lines[0].number));
  model.anchor = { offset: from + 1024, rows: 0 };
  assert.ok(model.missing[0] < from);
});

test("what is received is searched, an incomplete line again", () => {
  const { model, receive } = follower();
  receive("error 1\nerr");
  model.setQuery("error");
  assert.deepEqual(model.search.found, [0]);
  receive("or 2");
  receive("\nx\n");
  assert.deepEqual(model.search.found, [0, 8]);
});
