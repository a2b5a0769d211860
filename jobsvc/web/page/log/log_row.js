/** One line of a log: its number, which is a link, and its text in the colours of a terminal. */

import { html, useMemo } from "../html.js";
import { parseAnsi } from "./ansi.js";
import { shownText } from "./line_text.js";
import { markMatches } from "./log_search.js";

export function LogRow({ line, query, isCurrent, isSelected, height, onSelect }) {
  const { offset, number, bytes } = line;
  const text = useMemo(() => html`<${LineText} bytes=${bytes} query=${query} />`, [offset, bytes.length, query]);
  const unit = number === null ? `B${offset}` : `L${number}`;
  const classes = `log-row ${isSelected ? "selected" : ""} ${isCurrent ? "current" : ""}`;
  return html`<div class=${classes} style=${{ minHeight: `${height}px` }}>
    <a class="line-number" href="#${unit}" tabindex="-1" aria-label=${`Link to ${number === null ? `byte ${offset}` : `line ${number}`}`}
      onClick=${(event) => onSelect(event, unit)}>${number ?? "·"}</a>
    ${text}
  </div>`;
}

function LineText({ bytes, query }) {
  const { text, rest } = shownText(bytes);
  const spans = markMatches(parseAnsi(text), query).map(Span);
  return html`<span class="line-text">${spans}${rest && html`<i class="rest"> … ${rest} more in the download</i>`}</span>`;
}

function Span({ text, style: { color, background, ...flags }, isMatch }) {
  const classes = Object.keys(flags).concat(color ? "colored" : [], background ? "filled" : []).join(" ");
  if (isMatch) return html`<mark>${text}</mark>`;
  return classes ? html`<span class=${classes} style=${{ "--color": color, "--fill": background }}>${text}</span>` : text;
}
