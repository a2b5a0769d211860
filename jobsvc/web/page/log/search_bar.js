/** The field that searches a log, and how many lines have been found. */

import { formatSize } from "../format.js";
import { html, useEffect, useRef, useState } from "../html.js";

const TYPING_MS = 150;

export function SearchBar({ model }) {
  const field = useRef();
  const timer = useRef();
  useEffect(() => {
    const focus = (event) => {
      if (event.key !== "/" || event.target.matches("input, textarea, select")) return;
      event.preventDefault();
      field.current.select();
    };
    addEventListener("keydown", focus);
    return () => removeEventListener("keydown", focus);
  }, []);
  const update = () => {
    clearTimeout(timer.current);
    if (field.current.value !== (model.search?.query ?? "")) model.setQuery(field.current.value);
  };
  const type = () => {
    clearTimeout(timer.current);
    timer.current = setTimeout(update, TYPING_MS);
  };
  const press = (event) => {
    update();
    if (event.key === "Enter" && model.search) model.find(event.shiftKey ? 1 : -1);
    if (event.key === "Escape") model.tasks.search?.abort();
  };
  return html`<search class="log-search">
    <input type="search" ref=${field} placeholder="Search" aria-label="Search the log" onInput=${type} onKeyDown=${press} />
    ${model.search && html`<${Result} model=${model} />`}
  </search>`;
}

function Result({ model }) {
  const { search, size, tasks } = model;
  const total = search.lines.length;
  const place = search.current === null ? "" : `${search.lines.indexOf(search.current) + 1} of `;
  const isComplete = search.from === 0 && search.to >= model.buffer.end;
  return html`<button class="icon-only" title="Further back (Enter)" aria-label="Previous match" onClick=${() => model.find(-1)}>↑</button>
    <button class="icon-only" title="Forward (Shift+Enter)" aria-label="Next match" onClick=${() => model.find(1)}>↓</button>
    <span class="number small" role="status">${place}${total.toLocaleString()}${isComplete ? "" : "+"} ${total === 1 ? "line" : "lines"}</span>
    ${!isComplete && html`<span class="muted small">in ${formatSize(search.to - search.from)} of ${formatSize(size)}
      <button class="quiet" onClick=${() => model.findAll()} disabled=${Boolean(tasks.search)}>Search all</button></span>`}`;
}
