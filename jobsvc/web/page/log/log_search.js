/** Finds the lines of a log that contain a text, in the part that has been read so far. Capitals do not count. */

import { lineText } from "./line_text.js";

const latin = new TextDecoder("latin1"); // one character a byte, so that positions are offsets

export class LogSearch {
  /** `start`: the offset at which searching begins, in both directions. */
  constructor(query, start) {
    this.query = query;
    this.from = this.to = start;
    this.lines = []; // offsets of the lines that contain the text
    this.current = null; // the one that is shown
  }

  /** Search the bytes from `to` on. An incomplete last line is searched again when there is more of it. */
  addAfter(bytes) {
    while (this.lines.at(-1) >= this.to) this.lines.pop();
    for (const offset of findLines(bytes, this.to, this.query)) this.lines.push(offset);
    this.to += bytes.lastIndexOf(10) + 1;
  }

  /** Add the result of a search that ended where this one begins. */
  addBefore({ from, lines }) {
    this.from = from;
    this.lines = lines.concat(this.lines);
  }

  /** Return the nearest line that contains the text, before an offset (direction -1) or after it (1). */
  nearest(offset, direction) {
    return direction > 0 ? this.lines.find((line) => line > offset) : this.lines.findLast((line) => line < offset);
  }
}

/** Return the offsets of the lines that contain a text, of bytes that begin at the offset `base`. */
export function findLines(bytes, base, query) {
  const text = latin.decode(bytes);
  const pattern = patternOf(query);
  const isExact = /^[ -~]*$/.test(query) && !bytes.includes(27) && !bytes.includes(13);
  const found = [];
  for (let match = pattern.exec(text); match; match = pattern.exec(text)) {
    const start = text.lastIndexOf("\n", match.index) + 1;
    const end = text.indexOf("\n", match.index) + 1 || text.length;
    if (isExact || contains(lineText(bytes.subarray(start, end)), query)) found.push(base + start);
    pattern.lastIndex = end;
  }
  return found;
}

/** Return a pattern that finds a text in bytes, also if its colour changes within it. */
function patternOf(query) {
  const characters = [...latin.decode(new TextEncoder().encode(query))];
  return new RegExp(characters.map((each) => each.replace(/\W/, "\\$&")).join("(?:\\x1b\\[[0-?]*m)*"), "gi");
}

function contains(text, query) {
  return text.toLowerCase().includes(query.toLowerCase());
}

/** Cut spans where a text begins and ends in them. Those of the text have `isMatch`. */
export function markMatches(spans, query) {
  const text = spans.map((span) => span.text).join("");
  const bounds = query ? findAll(text.toLowerCase(), query.toLowerCase()) : [];
  let [position, at] = [0, 0];
  const marked = [];
  for (const { text: rest, style } of spans) {
    const end = position + rest.length;
    while (position < end) {
      while (bounds[at] <= position) at += 1;
      const next = Math.min(end, bounds[at] ?? end);
      marked.push({ text: text.slice(position, next), style, isMatch: at % 2 === 1 });
      position = next;
    }
  }
  return marked;
}

/** Return where a text begins and ends in another, in one list. */
function findAll(text, query) {
  const bounds = [];
  for (let at = text.indexOf(query); at >= 0; at = text.indexOf(query, at + query.length)) {
    bounds.push(at, at + query.length);
  }
  return bounds;
}
