import assert from "node:assert/strict";
import { test } from "node:test";

import {
  countNewlines, isNamed, parseFragment, readBlocks, searchBytes, splitLines,
} from "../../../jobsvc/web/page/log/log_lines.js";

const encode = (text) => new TextEncoder().encode(text);
const decode = (bytes) => new TextDecoder().decode(bytes);

test("a fragment names a line, several lines, or a byte", () => {
  assert.deepEqual(parseFragment("L1200"), { unit: "L", from: 1200, to: 1200 });
  assert.deepEqual(parseFragment("L10-L20"), { unit: "L", from: 10, to: 20 });
  assert.deepEqual(parseFragment("L20-L9"), { unit: "L", from: 9, to: 20 });
  assert.deepEqual(parseFragment("L10-20"), { unit: "L", from: 10, to: 20 });
  assert.deepEqual(parseFragment("B5000000000"), { unit: "B", from: 5000000000, to: 5000000000 });
});

test("any other fragment names nothing", () => {
  for (const fragment of [undefined, "", "L", "Lx", "l5", "L-5", "L5-", "L1e9", "token=x", "L12345678901234567890"]) {
    assert.equal(parseFragment(fragment), null, fragment);
  }
});

test("lines are named by number, or by offset", () => {
  const line = { number: 12, offset: 500 };
  assert.deepEqual([isNamed(parseFragment("L12"), line), isNamed(parseFragment("L10-L11"), line)], [true, false]);
  assert.deepEqual([isNamed(parseFragment("B500"), line), isNamed(parseFragment("B501"), line)], [true, false]);
  assert.equal(isNamed(parseFragment("L0-L99"), { number: NaN, offset: 5 }), false);
  assert.equal(isNamed(null, line), false);
});

test("lines end with a line feed, the last one also without", () => {
  const textsOf = (text) => splitLines(0, encode(text)).map(({ bytes }) => decode(bytes));
  assert.deepEqual(textsOf("a\n\nb\nc"), ["a\n", "\n", "b\n", "c"]);
  assert.deepEqual(textsOf(""), []);
});

test("lines have offsets, and numbers from that of the first one on", () => {
  const lines = splitLines(100, encode("aaa\nbb\nc"), false, 7);
  assert.deepEqual(lines.map(({ offset, number }) => [offset, number]), [[100, 7], [104, 8], [107, 9]]);
});

test("a line that began before is left out, but counted", () => {
  const [line] = splitLines(100, encode("rest\nline\n"), true, 7);
  assert.deepEqual([line.offset, line.number, decode(line.bytes)], [105, 8, "line\n"]);
});

test("without the beginning of any line, the part of a line is shown", () => {
  assert.deepEqual(splitLines(100, encode("xxxx"), true).map(({ offset }) => offset), [100]);
  assert.deepEqual(splitLines(100, encode("xxx\n"), true).map(({ offset }) => offset), [100]);
});

test("newlines are counted", () => {
  assert.deepEqual(["", "a", "\n\na\nb"].map((text) => countNewlines(encode(text))), [0, 0, 3]);
});

function search(query, text, start = 0) {
  const search = { query, found: [] };
  searchBytes(search, start, encode(text), false);
  return search;
}

test("lines that contain the text are found once, by their offsets", () => {
  assert.deepEqual(search("Error", "error error\nfine\nERROR\n\nno end error", 100).found, [100, 117, 124]);
  assert.deepEqual(search("error", "fine\n").found, []);
});

test("characters of patterns are only characters", () => {
  const text = "a.c\nabc\n(x[*\n\\d\n";
  assert.deepEqual(["a.c", "(x[*", "\\d"].map((query) => search(query, text).found), [[0], [8], [13]]);
});

test("text of any language is found", () => {
  assert.deepEqual(search("かな", "漢字\nkana かな\n").found, [7]);
  assert.deepEqual(search("GRÜN", "grün\n").found, [0]);
});

test("colours within the text do not hide it, and their codes are not found", () => {
  assert.deepEqual(search("error: x", "\x1b[31mer\x1b[1mror\x1b[0m: x\n").found, [0]);
  assert.deepEqual(search("31", "\x1b[31mred\x1b[0m\n").found, []);
});

test("a sequence without an end hides no other lines", () => {
  assert.deepEqual(search("error", "\x1b]0;title\nerror\n\x07\n").found, [10]);
  assert.deepEqual(search("error", "\x1b]0;title\rerror\x07\n").found, [0]);
});

test("a line that began before the bytes is not searched", () => {
  const result = { query: "x", found: [] };
  searchBytes(result, 100, encode("x\nx\n"), true);
  assert.deepEqual([result.found, result.from, result.to], [[102], 102, 104]);
});

test("texts before a carriage return are not found", () => {
  assert.deepEqual(search("10 %", "10 %\r20 %\n").found, []);
});

test("an incomplete last line is searched again, and found once", () => {
  const result = search("error", "error 1\nerr");
  assert.deepEqual([result.found, result.from, result.to], [[0], 0, 8]);
  searchBytes(result, 8, encode("error 2"), false);
  searchBytes(result, 8, encode("error 2\nx\n"), false);
  assert.deepEqual([result.found, result.to], [[0, 8], 18]);
});

test("lines that do not adjoin what has been searched are ignored", () => {
  const result = search("x", "x\ny\nx\n", 100);
  searchBytes(result, 107, encode("x\n"), false);
  searchBytes(result, 90, encode("x\n"), false);
  assert.deepEqual([result.found, result.from, result.to], [[100, 104], 100, 106]);
  searchBytes(result, 98, encode("x\n"), false);
  assert.deepEqual([result.found, result.from], [[98, 100, 104], 98]);
});

async function blocksOf(text, chunkSize) {
  const chunks = Array.from({ length: Math.ceil(text.length / chunkSize) }, (_, index) =>
    encode(text.slice(index * chunkSize, (index + 1) * chunkSize)));
  globalThis.fetch = async () => {
    const headers = { "Content-Range": `bytes 10-${9 + text.length}/${10 + text.length}` };
    return new Response(ReadableStream.from(chunks), { status: 206, headers });
  };
  const blocks = [];
  for await (const block of readBlocks("job", 10, 10 + text.length)) blocks.push(block);
  return blocks;
}

test("a log is read in blocks of whole lines, whatever the sizes of chunks", async () => {
  const text = `${"x".repeat(99)}\n`.repeat(3000);
  for (const size of [1000, 60_000, text.length]) {
    const blocks = await blocksOf(`${text}end`, size);
    assert.equal(blocks.map(({ bytes }) => decode(bytes)).join(""), `${text}end`);
    assert.ok(blocks.every(({ start, size: whole }) => start % 100 === 10 && whole === text.length + 13));
    assert.ok(blocks.every(({ bytes }) => bytes.length <= 128 * 1024));
  }
});

test("a very long line is cut into several blocks", async () => {
  const blocks = await blocksOf(`${"x".repeat(300_000)}\nend\n`, 100_000);
  assert.deepEqual(blocks.map(({ start }) => start), [10, 131_082, 262_154]);
});
