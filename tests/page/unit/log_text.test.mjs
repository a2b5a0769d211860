import assert from "node:assert/strict";
import { test } from "node:test";

import { LineIndex } from "../../../jobsvc/web/page/log/line_index.js";
import { countRows, lineText, shownText } from "../../../jobsvc/web/page/log/line_text.js";
import { LogBuffer } from "../../../jobsvc/web/page/log/log_buffer.js";
import { layOut, lineAtTop, offsetAtTop, ROW, topOf } from "../../../jobsvc/web/page/log/log_layout.js";

const encode = (text) => new TextEncoder().encode(text);

test("a line that is rewritten with carriage returns is its last text", () => {
  assert.equal(lineText(encode("10 %\r20 %\r30 %\r\n")), "30 %");
  assert.equal(lineText(encode("10 %\r20 %")), "20 %");
  assert.equal(lineText(encode("plain\n")), "plain");
  assert.equal(lineText(encode("\r\n")), "");
  assert.equal(lineText(encode("\n")), "");
});

test("bytes that are not UTF-8 are replaced", () => {
  assert.equal(lineText(Uint8Array.of(97, 255, 98, 10)), "a\ufffdb");
});

test("of a very long line only the beginning is shown", () => {
  const { text, isCut } = shownText(encode("x".repeat(1_000_000)));
  assert.deepEqual([text.length, isCut], [8192, true]);
  assert.deepEqual(shownText(encode("short\n")), { text: "short", isCut: false });
});

test("rows of a wrapped line: never fewer than it takes", () => {
  assert.equal(countRows(encode("\n"), 10), 1);
  assert.equal(countRows(encode(`${"x".repeat(20)}\n`), 10), 2);
  assert.equal(countRows(encode(`\x1b[31m${"x".repeat(10)}\x1b[0m\n`), 10), 1);
  assert.equal(countRows(encode("漢".repeat(10)), 10), 2);
  assert.equal(countRows(encode(`50 %\r${"x".repeat(10)}`), 10), 1);
});

test("the index knows lines that begin at blocks", () => {
  const index = new LineIndex();
  index.add({ start: 0, bytes: encode("a\nb\n") });
  index.add({ start: 4, bytes: encode("c\nincomplete") });
  assert.deepEqual(index.beforeOffset(5), { offset: 4, number: 3 });
  assert.deepEqual(index.beforeNumber(1000), { offset: 6, number: 4 });
  assert.deepEqual(index.beforeNumber(2), { offset: 0, number: 1 });
});

test("what is not in memory has space in proportion, within what browsers can show", () => {
  const buffer = new LogBuffer(4_000_000_000);
  buffer.append(encode("12345678\n".repeat(1000)));
  const layout = layOut(buffer, 5_000_000_000);
  assert.equal(layout.rows, 1000 * ROW);
  assert.ok(layout.total < 17_800_000);
  assert.ok(Math.abs(layout.above / (layout.above + layout.below) - 0.8) < 0.01);
  assert.equal(offsetAtTop(buffer, layout, 5_000_000_000, 0), 0);
  assert.equal(offsetAtTop(buffer, layout, 5_000_000_000, layout.total), 4_999_999_999);
});

test("the line at a height is at that height", () => {
  const buffer = new LogBuffer();
  buffer.append(encode("a\nb\nc\n"));
  const layout = layOut(buffer, 6);
  const line = lineAtTop(buffer, layout, 1.5 * ROW);
  assert.deepEqual(line, { offset: 2, pixels: ROW / 2 });
  assert.equal(topOf(buffer, layout, line.offset) + line.pixels, 1.5 * ROW);
  assert.deepEqual(layOut(new LogBuffer(), 0), { above: 0, rows: 0, below: 0, total: 0 });
});
