/** The rows of the list. All have the same height, and only those near the window are in the document. */

import { useNow } from "../clock.js";
import { html, useLayoutEffect, useListener, useRef, useState } from "../html.js";
import { COLUMNS, JobRow } from "./job_row.js";

const STEP = 4; // so that the rows do not change with each pixel
const SPARE = 6;
const MOST_PRINTED = 2000;
const HEADINGS_PX = 110;

export function JobTable({ jobs }) {
  const now = useNow(5000);
  const list = useRef();
  const [first, end] = rowsToRender(...useWindow(list), jobs.length);
  const shown = jobs.slice(first, end);
  const keys = useRef(new Map());
  keys.current = rowKeys(shown, keys.current);
  const padding = `calc(${first} * var(--row)) 0 calc(${jobs.length - end} * var(--row))`;
  return html`<div role="table" class="jobs number" aria-label="Jobs" aria-rowcount=${jobs.length + 1}>
    <div role="rowgroup" class="titles small muted">
      <div role="row" class="row" aria-rowindex="1">
        ${COLUMNS.map(([name, title]) => html`<span role="columnheader" class=${name}>${title}</span>`)}
      </div>
    </div>
    <div role="rowgroup" ref=${list} style=${{ padding }}>
      ${shown.map((job, index) => html`<${JobRow} key=${keys.current.get(job.id)} job=${job} index=${first + index} now=${now} />`)}
    </div>
  </div>`;
}

/** Return `[first, end]` of the rows to render, of `count`. `top` is the first one in the window, `rows` fit in it. */
export function rowsToRender(top, rows, count) {
  const first = Math.max(0, Math.min(top - SPARE, count - rows - 2 * SPARE));
  return [first, Math.min(count, first + rows + 2 * SPARE)];
}

/** Return keys by the ids of jobs: those of `before`; a new job gets the key, and so the elements, of one that has gone. */
export function rowKeys(jobs, before) {
  const keys = new Map(jobs.map(({ id }) => [id, before.get(id)]));
  const free = [...before].filter(([id]) => !keys.has(id)).map(([, key]) => key);
  for (const [id, key] of keys) keys.set(id, key ?? free.shift() ?? Symbol());
  return keys;
}

/** Return the first row in the window, and how many fit in it. */
function useWindow(list) {
  const [top, setTop] = useState(0);
  const [rows, setRows] = useState(50);
  const measure = () => {
    const { height } = list.current.firstElementChild.getBoundingClientRect();
    setTop(Math.floor(-list.current.getBoundingClientRect().top / height / STEP) * STEP);
    setRows(Math.ceil(innerHeight / height) + STEP);
  };
  const print = () => {
    setTop(0);
    setRows(MOST_PRINTED);
  };
  useLayoutEffect(measure, []);
  useListener("scroll", measure);
  useListener("resize", measure);
  useListener("beforeprint", print);
  useListener("afterprint", measure);
  return [top, rows];
}

/** Move the focus by `step` rows, or to the first row in the window if no row has it. */
export function moveFocus(step) {
  const links = [...document.querySelectorAll(".jobs a")];
  const index = links.indexOf(document.querySelector(".row:focus-within a"));
  const next = index < 0 ? links.find((link) => link.getBoundingClientRect().top > HEADINGS_PX) : links[index + step];
  next?.focus();
}
