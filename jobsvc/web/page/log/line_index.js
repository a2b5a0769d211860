/** Which line begins where, as far as a log has been counted from its start. */

import { countUpTo } from "./log_buffer.js";

export class LineIndex {
  offsets = [0]; // of lines that begin here; the last one is where counting goes on
  numbers = [1];

  /** Count the lines of the block that follows. An incomplete last line is not counted yet. */
  add({ start, bytes }) {
    this.offsets.push(start + bytes.lastIndexOf(10) + 1);
    this.numbers.push(this.numbers.at(-1) + countNewlines(bytes));
  }

  /** Return the last of the known lines, `{offset, number}`, up to an offset. */
  beforeOffset(offset) {
    return this.point(countUpTo(this.offsets, offset) - 1);
  }

  /** Return the last of the known lines up to a number. */
  beforeNumber(number) {
    return this.point(countUpTo(this.numbers, number) - 1);
  }

  point(index) {
    return { offset: this.offsets.at(index), number: this.numbers.at(index) };
  }
}

export function countNewlines(bytes) {
  let count = 0;
  for (let at = bytes.indexOf(10); at >= 0; at = bytes.indexOf(10, at + 1)) count += 1;
  return count;
}
