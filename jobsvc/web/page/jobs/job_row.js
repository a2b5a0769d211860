/** One job of the list. */

import { formatAge, formatDuration } from "../format.js";
import { html, useLayoutEffect, useMemo, useRef } from "../html.js";
import { followLink, routeUrl } from "../router.js";
import { ProgressBar, StalledBadge, StateLabel } from "../state_label.js";
import { WatchButton } from "../watched_jobs.js";

/** Class, title and content of each column. Rows are used again for other jobs, but not what has a key. */
export const COLUMNS = [
  ["state-cell", "State", ({ status }) => html`<${StateLabel} status=${status} />`],
  ["id truncate", "Job", ({ id, owner, error }) => html`
    <a href=${routeUrl({ job: id })} title=${error} onClick=${followLink}>${id}</a>
    ${owner && html` <bdi class="muted">${owner}</bdi>`}`],
  ["progress", "Progress", (job) => job.status !== "queued" && job.status !== "completed" && html`
    <${ProgressBar} key=${job.id} job=${job} />${Math.floor(job.progress)} %`],
  ["frames muted", "Frames", framesText],
  ["doing truncate", "Phase or error", ({ stalled, error, phase }) => html`${stalled && html`<${StalledBadge} /> `}${error ?? phase}`],
  ["end muted", "Time", endText],
  ["age muted", "Created", ({ createdAt }, now) => formatAge(createdAt, now)],
  ["watching", "Notify", ({ id, done }) => !done && html`<${WatchButton} key=${id} id=${id} />`],
];

export function JobRow({ job, index, now }) {
  const row = useRef();
  useLayoutEffect(() => () => row.current?.querySelector("a").blur(), [job.id]); // the other job did not have the focus
  const render = () => html`<div ref=${row} role="row" class="row ${job.error || job.stalled ? "notable" : ""}" aria-rowindex=${index + 2}>
    ${COLUMNS.map(([name, , content]) => html`<span role="cell" class=${name}>${content(job, now)}</span>`)}
  </div>`;
  return useMemo(render, [job, index, now]);
}

/** Return when a job ends, at `now` in milliseconds since the epoch, or how long it took. */
export function endText({ status, startedAt, completedAt, estimatedCompletionAt }, now) {
  const [start, end, estimate] = [startedAt, completedAt, estimatedCompletionAt].map((time) => Date.parse(time) / 1000);
  if (!isNaN(end - start)) return `${status === "completed" ? "took" : "after"} ${formatDuration(end - start)}`;
  const seconds = estimate - now / 1000;
  if (status !== "rendering" || isNaN(seconds)) return "";
  return seconds < 1 ? "any moment" : `in ${formatDuration(seconds)}`;
}

/** Return the frames of a job as text: "105 / 250". */
export function framesText({ framesDone, framesTotal }) {
  return framesTotal === undefined ? (framesDone ?? "") : `${framesDone ?? 0} / ${framesTotal}`;
}
