/** The rows of the list. Only those near the window are in the document. */

import { useNow } from "../clock.js";
import { html } from "../html.js";
import { JobRow } from "./job_row.js";
import { useRowWindow } from "./row_window.js";

const COLUMNS = {
  "state-cell": "State", id: "Job", progress: "Progress", frames: "Frames", doing: "Phase or error", end: "Ends", age: "Created", watching: "Notify",
};

/** Move the focus by `step` rows, or to the first row in the window if no row has it. */
export function moveFocus(list, step) {
  const links = [...list.querySelectorAll("a")];
  const index = links.findIndex((link) => link.closest(".row").contains(document.activeElement));
  const next = index === -1 ? links.find((link) => link.getBoundingClientRect().top > 150) : links[index + step];
  next?.focus();
}

export function JobTable({ jobs, list }) {
  const now = useNow(5000);
  const [first, end, rowHeight] = useRowWindow(list, jobs.length);
  const padding = { paddingTop: `${first * rowHeight}px`, paddingBottom: `${(jobs.length - end) * rowHeight}px` };
  return html`<div role="table" class="jobs number" aria-label="Jobs" aria-rowcount=${jobs.length + 1}>
    <div role="rowgroup" class="titles small muted">
      <div role="row" class="row" aria-rowindex="1">
        ${Object.entries(COLUMNS).map(([name, title]) => html`<span role="columnheader" class=${name}>${title}</span>`)}
      </div>
    </div>
    <div role="rowgroup" ref=${list} style=${padding}>
      ${jobs.slice(first, end).map((job, offset) => html`<${JobRow} key=${job.id} job=${job} index=${first + offset} now=${now} />`)}
    </div>
  </div>`;
}
