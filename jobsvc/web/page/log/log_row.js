/** One line of a log: its number, which is a link, and its text in the colours of a terminal. */

import { html, useMemo } from "../html.js";
import { lineText, parseAnsi, plainText } from "./ansi.js";
import { patternOf } from "./log_lines.js";

const SHOWN_CHARACTERS = 8192; // of a line

export function LogRow({ line: { offset, number, bytes }, query, isCurrent, isSelected, height, onSelect }) {
  const text = useMemo(() => html`<${LineText} bytes=${bytes} query=${query} />`, [bytes, query]);
  const unit = number ? `L${number}` : `B${offset}`;
  const classes = `log-row ${isSelected ? "selected" : ""} ${isCurrent ? "current" : ""}`;
  return html`<div class=${classes} style=${{ minHeight: `${height}px` }}>
    <a class="line-number" href="#${unit}" tabindex="-1" aria-label=${number ? `Line ${number}` : `Byte ${offset}`}
      onClick=${(event) => onSelect(event, unit)}>${number || "·"}</a>
    ${text}
  </div>`;
}

/** The text of a line in the colours of a terminal, with what a search has found in it. */
export function LineText({ bytes, query }) {
  const text = lineText(bytes);
  const isCut = text.length > SHOWN_CHARACTERS;
  const spans = parseAnsi(text.slice(0, SHOWN_CHARACTERS)).map(({ text: part, style: { color, background, ...flags } }) =>
    html`<span class=${Object.keys(flags).join(" ")} style=${{ "--color": color, "--fill": background }}>${mark(part, query)}</span>`);
  return html`<span class="line-text">${spans}${isCut && html`<i class="muted"> … and more in the download</i>`}</span>`;
}

function mark(text, query) {
  const parts = query ? text.split(patternOf(query)) : [text];
  return parts.map((part, index) => (index % 2 ? html`<mark>${part}</mark>` : part));
}

/** Return how many rows of `columns` characters a line takes, at most: tabs have 8 columns, some characters 2. */
export function countRows(bytes, columns) {
  if (columns === Infinity || (bytes.length <= columns && !bytes.includes(9))) return 1; // UTF-8 has at least one byte a column
  const text = lineText(bytes);
  const shown = plainText(text.slice(0, SHOWN_CHARACTERS)).replace(/\t/g, " ".repeat(8)).replace(/[\u1100-\uffff]/g, "  ");
  return Math.ceil((shown.length + (text.length > SHOWN_CHARACTERS ? 30 : 0)) / columns) || 1;
}
