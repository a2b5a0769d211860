import assert from "node:assert/strict";
import { test } from "node:test";

import { countUpTo, LogBuffer } from "../../../jobsvc/web/page/log/log_buffer.js";

const encode = (text) => new TextEncoder().encode(text);
const decode = (bytes) => new TextDecoder().decode(bytes);

function bufferOf(text, start = 0) {
  const buffer = new LogBuffer(start);
  buffer.append(encode(text));
  return buffer;
}

function textsOf(buffer) {
  return Array.from({ length: buffer.lineCount }, (_, index) => decode(buffer.line(index).bytes));
}

test("lines end with a line feed, the last one also without", () => {
  assert.deepEqual(textsOf(bufferOf("a\n\nb\nc")), ["a\n", "\n", "b\n", "c"]);
  assert.deepEqual(textsOf(bufferOf("")), []);
});

test("bytes in pieces of any size are the same lines", () => {
  const text = "one\n\ntwo\r\nthree\n\n\nfour";
  for (let size = 1; size < 9; size += 1) {
    const buffer = new LogBuffer();
    for (let at = 0; at < text.length; at += size) buffer.append(encode(text.slice(at, at + size)));
    assert.deepEqual(textsOf(buffer), textsOf(bufferOf(text)), `pieces of ${size}`);
  }
});

test("lines before the start keep the numbers of the others", () => {
  const buffer = bufferOf("c\nd\n", 4);
  assert.equal(buffer.line(0).number, null);
  buffer.setNumber(6, 4);
  buffer.prepend(encode("b\n"));
  assert.deepEqual([buffer.line(0).number, buffer.line(2).number], [2, 4]);
});

test("a buffer from the start of the log has numbers", () => {
  const buffer = bufferOf("b\n", 2);
  buffer.prepend(encode("a\n"));
  assert.deepEqual([buffer.start, buffer.line(1).number], [0, 2]);
});

test("a line is found by any offset in it, and the nearest one by others", () => {
  const buffer = bufferOf("aaa\nbb\nc", 100);
  assert.deepEqual([100, 103, 104, 106, 107, 0, 999].map((offset) => buffer.lineAt(offset)), [0, 0, 1, 1, 2, 0, 2]);
});

test("what is dropped at the start or end changes neither numbers nor offsets", () => {
  const line = `${"x".repeat(1023)}\n`;
  const forward = bufferOf(line.repeat(3000));
  forward.trimStart();
  assert.equal(forward.line(0).number, forward.start / 1024 + 1);
  assert.equal(forward.end, 3000 * 1024);
  assert.ok(forward.bytes.length <= 2 * 1024 * 1024 + 1024);
  const back = bufferOf(line.repeat(3000));
  back.trimEnd();
  assert.deepEqual([back.start, back.line(0).number, back.end % 1024], [0, 1, 0]);
});

test("a line that is longer than the buffer is cut", () => {
  const buffer = bufferOf("x".repeat(3 * 1024 * 1024));
  buffer.trimStart();
  assert.equal(buffer.lineCount, 1);
  buffer.trimEnd();
  assert.equal(buffer.lineCount, 1);
});

test("wrapped lines have several rows, and each row leads back to its line", () => {
  const buffer = bufferOf(`short\n${"y".repeat(25)}\nend\n`);
  buffer.setColumns(10);
  assert.deepEqual([0, 1, 2, 3].map((index) => buffer.rowOf(index)), [0, 1, 4, 5]);
  assert.deepEqual([0, 1, 3.5, 4, 9].map((row) => buffer.lineAtRow(row)), [0, 1, 1, 2, 2]);
  buffer.setColumns(Infinity);
  assert.equal(buffer.rowOf(3), 3);
});

test("the rows of a line are counted again when it grows", () => {
  const buffer = bufferOf("a\nyyyyy");
  buffer.setColumns(10);
  assert.equal(buffer.rowOf(2), 2);
  buffer.append(encode("yyyyyyyyyy\nb"));
  assert.equal(buffer.rowOf(3), 4);
});

test("counting ascending values", () => {
  assert.deepEqual([-1, 0, 4, 5, 99].map((limit) => countUpTo([0, 5, 5, 9], limit)), [0, 1, 1, 3, 4]);
});
