/** What a terminal shows of a line's bytes. Pure functions. */

import { plainText } from "./ansi.js";

const SHOWN_BYTES = 8192; // of a line
const decoder = new TextDecoder("utf-8", { ignoreBOM: true });

/** Return the bytes after the last carriage return: programs rewrite a line to show progress. Line ends are left out. */
export function foldLine(line) {
  let end = line.length;
  while (end && (line[end - 1] === 10 || line[end - 1] === 13)) end -= 1;
  return line.subarray(end && line.lastIndexOf(13, end - 1) + 1, end);
}

/** Return the text of a line, with escape sequences, and whether it is cut because the line is very long. */
export function shownText(line) {
  const bytes = foldLine(line);
  return { text: decoder.decode(bytes.subarray(0, SHOWN_BYTES)), isCut: bytes.length > SHOWN_BYTES };
}

/** Return the whole text of a line, without escape sequences. */
export function lineText(line) {
  return plainText(decoder.decode(foldLine(line)));
}

/** Return how many rows of `columns` characters a line takes, at most: tabs have 8 columns, some characters 2. */
export function countRows(line, columns) {
  if (line.length <= columns && !line.includes(9)) return 1; // UTF-8 has at least one byte a column
  const { text, isCut } = shownText(line);
  const shown = plainText(text);
  const wide = shown.match(/[\u1100-\uffff]/g)?.length ?? 0;
  const width = shown.length + wide + 7 * (shown.split("\t").length - 1) + (isCut ? 30 : 0);
  return Math.max(1, Math.ceil(width / columns));
}
