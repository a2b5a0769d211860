/** Which line begins where, as far as a log has been counted from its start. */

import { countUpTo } from "./log_buffer.js";

const STEP_BYTES = 128 * 1024;

export class LineIndex {
  offsets = [0]; // of lines that begin here, one in about 128 kB; the last one is where counting goes on
  numbers = [1];

  /** How far lines have been counted: the offset of the line that `nextNumber` is the number of. */
  get reached() {
    return this.offsets.at(-1);
  }

  get nextNumber() {
    return this.numbers.at(-1);
  }

  /** Count the lines of the bytes that follow; an incomplete last line is not counted yet. */
  add(bytes) {
    let [last, number, base] = [0, this.nextNumber, this.reached];
    const complete = bytes.lastIndexOf(10) + 1;
    for (let end = bytes.indexOf(10) + 1; end; end = bytes.indexOf(10, end) + 1) {
      number += 1;
      if (end - last >= STEP_BYTES || end === complete) {
        this.offsets.push(base + end);
        this.numbers.push(number);
        last = end;
      }
    }
  }

  /** Return the last known line, `{offset, number}`, that is not after a line. */
  beforeLine(number) {
    return this.point(countUpTo(this.numbers, number) - 1);
  }

  /** Return the last known line that is not after an offset. */
  beforeOffset(offset) {
    return this.point(countUpTo(this.offsets, offset) - 1);
  }

  point(index) {
    return { offset: this.offsets[index], number: this.numbers[index] };
  }
}
