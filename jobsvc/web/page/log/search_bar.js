/** The field that searches a log, and how many lines have been found. */

import { formatSize } from "../format.js";
import { html, useRef } from "../html.js";

const TYPING_MS = 150;

export function SearchBar({ model, field }) {
  const timer = useRef();
  const search = () => {
    clearTimeout(timer.current);
    if (field.current.value !== (model.search?.query ?? "")) model.setQuery(field.current.value);
  };
  const type = () => {
    clearTimeout(timer.current);
    timer.current = setTimeout(search, TYPING_MS);
  };
  const press = ({ key, shiftKey }) => {
    if (key === "Escape") model.tasks.search?.abort();
    if (key !== "Enter") return;
    search();
    if (model.search) model.find(shiftKey ? 1 : -1);
  };
  return html`<search class="log-search">
    <input type="search" ref=${field} placeholder="Search" aria-label="Search the log" onInput=${type} onKeyDown=${press} />
    ${model.search && html`<${Found} model=${model} />`}
  </search>`;
}

function Found({ model }) {
  const { lines, current, from, to } = model.search;
  const place = current === null ? "" : `${(lines.indexOf(current) + 1).toLocaleString()} of `;
  const part = from || to < model.buffer.end ? ` in ${formatSize(to - from)} of ${formatSize(model.size)}` : "";
  const step = (label, arrow, direction) =>
    html`<button class="icon-only" title=${label} aria-label=${label} onClick=${() => model.find(direction)}>${arrow}</button>`;
  return html`${step("Further back (Enter)", "↑", -1)}${step("Forward (Shift+Enter)", "↓", 1)}
    <span class="number small" role="status">${place}${lines.length.toLocaleString()}<span class="muted">${part}</span></span>`;
}
