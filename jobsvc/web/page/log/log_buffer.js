/** The part of a log that is in memory: bytes without a gap, and where lines begin in them. */

import { countRows } from "./line_text.js";

const MAX_BYTES = 2 * 1024 * 1024;

export class LogBuffer {
  /** `start`: offset in the log of what is added first. */
  constructor(start = 0) {
    this.start = start;
    this.bytes = new Uint8Array();
    this.starts = [];
    this.firstNumber = start ? null : 1; // number of the first line; null if it is not known
    this.columns = Infinity; // at which lines are wrapped
    this.rows = [0]; // the first row of each line, as far as they have been counted
  }

  get end() {
    return this.start + this.bytes.length;
  }

  get isFull() {
    return this.bytes.length > MAX_BYTES * 1.25;
  }

  get lineCount() {
    return this.starts.length;
  }

  /** Add the bytes that follow the end. They may complete the last line. */
  append(bytes) {
    const from = this.bytes.length;
    this.rows.length = Math.max(1, Math.min(this.rows.length, this.lineCount));
    this.bytes = join(this.bytes, bytes);
    addStarts(this.starts, this.bytes, from);
  }

  /** Add the bytes before the start, which begin with a line. */
  prepend(bytes) {
    const before = this.lineCount;
    this.replace(this.start - bytes.length, join(bytes, this.bytes));
    if (this.firstNumber !== null) this.firstNumber -= this.lineCount - before;
    if (this.start === 0) this.firstNumber = 1;
  }

  /** Drop lines at the start, or at the end, if there are too many bytes. */
  trimStart() {
    if (!this.isFull) return;
    const first = this.lineAt(this.end - MAX_BYTES);
    if (this.firstNumber !== null) this.firstNumber += first;
    this.replace(this.start + this.starts[first], this.bytes.slice(this.starts[first]));
  }

  trimEnd() {
    if (!this.isFull) return;
    this.replace(this.start, this.bytes.slice(0, this.starts[this.lineAt(this.start + MAX_BYTES)] || MAX_BYTES));
  }

  replace(start, bytes) {
    this.start = start;
    this.bytes = bytes;
    this.rows = [0];
    addStarts((this.starts = []), bytes, 0);
  }

  /** Return a line by its index. Its bytes have the line end; its number is null if it is not known. */
  line(index) {
    const bytes = this.bytes.subarray(this.starts[index], this.starts[index + 1]);
    const number = this.firstNumber === null ? null : this.firstNumber + index;
    return { offset: this.start + this.starts[index], number, bytes };
  }

  /** Return the index of the line with an offset, or of the nearest one. */
  lineAt(offset) {
    return Math.max(0, countUpTo(this.starts, offset - this.start) - 1);
  }

  /** Tell the number of the line that begins at an offset. */
  setNumber(offset, number) {
    this.firstNumber = number - countUpTo(this.starts, offset - this.start - 1);
  }

  /** Wrap lines at a number of columns; with Infinity each line is one row. */
  setColumns(columns) {
    if (columns !== this.columns) this.rows = [0];
    this.columns = columns;
  }

  /** Return the first row of a line; of the index after the last line the number of rows. */
  rowOf(index) {
    if (this.columns === Infinity) return index;
    for (let at = this.rows.length - 1; at < index; at += 1) {
      this.rows.push(this.rows[at] + countRows(this.line(at).bytes, this.columns));
    }
    return this.rows[index];
  }

  /** Return the index of the line that has a row, or of the nearest one. */
  lineAtRow(row) {
    this.rowOf(this.lineCount);
    const index = this.columns === Infinity ? Math.floor(row) : countUpTo(this.rows, row) - 1;
    return Math.max(0, Math.min(index, this.lineCount - 1));
  }
}

/** Add where lines begin from a position on, which may be within a line. */
function addStarts(starts, bytes, from) {
  let at = from === 0 || bytes[from - 1] === 10 ? from : bytes.indexOf(10, from) + 1;
  for (; (at || !starts.length) && at < bytes.length; at = bytes.indexOf(10, at) + 1) starts.push(at);
}

/** Return two byte arrays as one. */
export function join(first, second) {
  const joined = new Uint8Array(first.length + second.length);
  joined.set(first);
  joined.set(second, first.length);
  return joined;
}

/** Return how many of the ascending values are at most `limit`. */
export function countUpTo(values, limit) {
  let [low, high] = [0, values.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (values[middle] <= limit) low = middle + 1;
    else high = middle;
  }
  return low;
}
