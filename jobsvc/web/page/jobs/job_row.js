/** One job of the list. */

import { formatAge, formatDuration } from "../format.js";
import { html, useMemo } from "../html.js";
import { followLink, routeUrl } from "../router.js";
import { ProgressBar, StalledBadge, StateLabel } from "../state_label.js";
import { WatchButton } from "../watched_jobs.js";

/** Return when a job ends, at `now` in milliseconds since the epoch, or how long it took. */
export function endText({ status, startedAt, completedAt, estimatedCompletionAt }, now) {
  if (completedAt && startedAt) {
    const duration = formatDuration((Date.parse(completedAt) - Date.parse(startedAt)) / 1000);
    return status === "completed" ? `took ${duration}` : `after ${duration}`;
  }
  const seconds = (Date.parse(estimatedCompletionAt) - now) / 1000;
  if (status !== "rendering" || isNaN(seconds)) return "";
  return seconds < 1 ? "any moment" : `in ${formatDuration(seconds)}`;
}

/** Return the frames of a job as text: "105 / 250". */
export function framesText({ framesDone, framesTotal }) {
  return framesTotal === undefined ? (framesDone ?? "") : `${framesDone ?? 0} / ${framesTotal}`;
}

/** A row. `age` and `end` are texts: the row is rendered again only when one of them, the job or the index changes. */
export function JobRow({ job, index, now }) {
  const age = formatAge(job.createdAt, now);
  const end = endText(job, now);
  return useMemo(() => row(job, index, age, end), [job, index, age, end]);
}

function row(job, index, age, end) {
  const { id, status } = job;
  const isUnfinished = status === "queued" || status === "rendering";
  const hasBar = status !== "queued" && status !== "completed";
  return html`<div role="row" class="row ${job.error || job.stalled ? "notable" : ""}" aria-rowindex=${index + 2}>
    <span role="cell" class="state-cell"><${StateLabel} status=${status} /></span>
    <span role="cell" class="id truncate">
      <a href=${routeUrl({ job: id })} title=${job.error} onClick=${followLink}>${id}</a>
      ${job.owner && html` <bdi class="muted">${job.owner}</bdi>`}
    </span>
    <span role="cell" class="progress">
      ${hasBar && html`<${ProgressBar} job=${job} />${Math.floor(job.progress)} %`}
    </span>
    <span role="cell" class="frames muted">${framesText(job)}</span>
    <span role="cell" class="doing truncate ${job.error ? "" : "muted"}">
      ${job.stalled && html`<${StalledBadge} /> `}${job.error ?? job.phase}
    </span>
    <span role="cell" class="end muted">${end}</span>
    <span role="cell" class="age muted">${age}</span>
    <span role="cell" class="watching">${isUnfinished && html`<${WatchButton} id=${id} />`}</span>
  </div>`;
}
