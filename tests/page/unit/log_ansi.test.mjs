import assert from "node:assert/strict";
import { test } from "node:test";

import { lineText, parseAnsi, plainText } from "../../../jobsvc/web/page/log/ansi.js";

function styleOf(text) {
  return parseAnsi(text).at(-1).style;
}

test("text without sequences is one span without a style", () => {
  assert.deepEqual(parseAnsi("a <b> c"), [{ text: "a <b> c", style: {} }]);
  assert.deepEqual(parseAnsi(""), []);
});

test("a style is valid until it is reset", () => {
  const spans = parseAnsi("a\x1b[1;31mb\x1b[0mc\x1b[4md\x1b[me");
  assert.deepEqual(spans.map(({ text }) => text), ["a", "b", "c", "d", "e"]);
  assert.deepEqual(spans.map(({ style }) => Object.keys(style)), [[], ["bold", "color"], [], ["underline"], []]);
});

test("16, 256 and all colours, of text and background", () => {
  assert.equal(styleOf("\x1b[31mx").color, "#d1242f");
  assert.equal(styleOf("\x1b[97mx").color, "#ffffff");
  assert.equal(styleOf("\x1b[48;5;196mx").background, "rgb(255,0,0)");
  assert.equal(styleOf("\x1b[38;5;9mx").color, styleOf("\x1b[91mx").color);
  assert.equal(styleOf("\x1b[38;5;244mx").color, "rgb(128,128,128)");
  assert.equal(styleOf("\x1b[38;2;1;2;255mx").color, "rgb(1,2,255)");
  assert.equal(styleOf("\x1b[38:2::1:2:255mx").color, "rgb(1,2,255)");
});

test("39 and 49 end a colour, and codes after a colour still count", () => {
  assert.equal(styleOf("\x1b[31m\x1b[39mx").color, undefined);
  assert.deepEqual(styleOf("\x1b[38;5;1;1mx"), { color: "#d1242f", bold: true });
});

test("invalid colours are some colour or none, never another text", () => {
  for (const codes of ["38;5;999", "38;5", "38;2;300;-1", "38;2", "38;7;1", "38", "5;;;;", "99999999999"]) {
    const [span] = parseAnsi(`\x1b[${codes}mx`);
    assert.match(`${span.style.color ?? "#000000"}`, /^(#[0-9a-f]{6}|rgb\([,\d]*\))$/, codes);
  }
});

test("other sequences are left out: cursor, titles, links, character sets", () => {
  assert.equal(plainText("a\x1b[2Kb\x1b[?25lc\x1b]0;title\x07d\x1b]8;;http://x\x1b\\e\x1b(Bf\x1bM"), "abcdef");
});

test("a sequence without an end hides nothing", () => {
  assert.equal(plainText("a\x1b]0;b"), "a␛]0;b");
  assert.equal(plainText("a\x1b[31"), "a␛[31");
});

test("control characters become visible", () => {
  assert.equal(plainText("a\0b\x07c\x7fd\x9be"), "a␀b␇c␡d�e");
});

test("a line that is rewritten with carriage returns is its last text", () => {
  const textOf = (text) => lineText(new TextEncoder().encode(text));
  assert.equal(textOf("10 %\r20 %\r30 %\r\n"), "30 %");
  assert.equal(textOf("10 %\r20 %"), "20 %");
  assert.equal(textOf("plain\n"), "plain");
  assert.equal(textOf("\r\n"), "");
  assert.equal(textOf("\n"), "");
  assert.equal(textOf(`${"\r".repeat(300_000)}x\ry`), "y");
});

test("bytes that are not UTF-8 are replaced", () => {
  assert.equal(lineText(Uint8Array.of(97, 255, 98, 10)), "a\ufffdb");
});
