/** Where lines are in the page: those in memory have rows of equal height, what is not in memory has empty space. */

export const ROW = 18; // height of a row in pixels
const MAX_HEIGHT = 8_000_000; // Firefox shows no more than 17,800,000 pixels

/** Return the layout of a buffer of a log of `size` bytes: heights in pixels above, of and below its lines. */
export function layOut(buffer, size) {
  const rows = buffer.rowOf(buffer.lineCount) * ROW;
  const perByte = Math.min(rows / buffer.bytes.length || 0, MAX_HEIGHT / size);
  const space = (bytes) => (bytes > 0 ? bytes * perByte + 50 * ROW : 0);
  const [above, below] = [space(buffer.start), space(size - buffer.end)];
  return { above, rows, below, total: above + rows + below };
}

/** Return how far from the top of the page a line is that has an offset. */
export function topOf(buffer, layout, offset) {
  return layout.above + buffer.rowOf(buffer.lineAt(offset)) * ROW;
}

/** Return the line at a height, `{offset, pixels}`: its offset, and how much of it is above this height. */
export function lineAtTop(buffer, layout, top) {
  const line = buffer.lineAtRow((top - layout.above) / ROW);
  return { offset: buffer.line(line).offset, pixels: top - layout.above - buffer.rowOf(line) * ROW };
}

/** Return the offset in the log that a height outside the buffer stands for. */
export function offsetAtTop(buffer, layout, size, top) {
  if (top < layout.above) return Math.floor((buffer.start * top) / layout.above);
  const share = (top - layout.above - layout.rows) / layout.below;
  return Math.min(size - 1, Math.floor(buffer.end + (size - buffer.end) * share));
}
