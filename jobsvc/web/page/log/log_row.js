/** One line of a log: its number, which is a link, and its text in the colours of a terminal. */

import { html, useMemo } from "../html.js";
import { parseAnsi } from "./ansi.js";
import { shownText } from "./line_text.js";
import { patternOf } from "./log_search.js";

export function LogRow({ line, query, isCurrent, isSelected, height, onSelect }) {
  const { offset, number, bytes } = line;
  const text = useMemo(() => html`<${LineText} bytes=${bytes} query=${query} />`, [offset, bytes.length, query]);
  const unit = number === null ? `B${offset}` : `L${number}`;
  const classes = `log-row ${isSelected ? "selected" : ""} ${isCurrent ? "current" : ""}`;
  return html`<div class=${classes} style=${{ minHeight: `${height}px` }}>
    <a class="line-number" href="#${unit}" tabindex="-1" aria-label=${number === null ? `Byte ${offset}` : `Line ${number}`}
      onClick=${(event) => onSelect(event, unit)}>${number ?? "·"}</a>
    ${text}
  </div>`;
}

/** The text of a line in the colours of a terminal. */
export function LineText({ bytes, query }) {
  const { text, isCut } = shownText(bytes);
  const spans = parseAnsi(text).map((span) => html`<${Span} ...${span} query=${query} />`);
  return html`<span class="line-text">${spans}${isCut && html`<i class="muted"> … and more in the download</i>`}</span>`;
}

function Span({ text, style: { color, background, ...flags }, query }) {
  const classes = [...Object.keys(flags), color && "colored", background && "filled"].filter(Boolean).join(" ");
  const parts = query ? text.split(new RegExp(`(${patternOf(query).source})`, "i")) : [text];
  const content = parts.map((part, index) => (index % 2 ? html`<mark>${part}</mark>` : part));
  return classes ? html`<span class=${classes} style=${{ "--color": color, "--fill": background }}>${content}</span>` : content;
}
