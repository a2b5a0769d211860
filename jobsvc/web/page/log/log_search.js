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
  // Colours may change within the text. What is found may be hidden: within a sequence, or before a carriage return.
  const pattern = patternOf(latin.decode(new TextEncoder().encode(query)), "(?:\\x1b\\[[0-?]*m)*");
  const found = [];
  for (let match = pattern.exec(text); match; match = pattern.exec(text)) {
    const start = text.lastIndexOf("\n", match.index) + 1;
    const end = text.indexOf("\n", match.index) + 1 || text.length;
    if (patternOf(query).test(lineText(bytes.subarray(start, end)))) found.push(base + start);
    pattern.lastIndex = end;
  }
  return found;
}

/** Return a pattern that finds a text, with `between` between its characters. */
export function patternOf(query, between = "") {
  return new RegExp([...query].map((each) => each.replace(/[^\w\s]/, "\\$&")).join(between), "gi");
}
