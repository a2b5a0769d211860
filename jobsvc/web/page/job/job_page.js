/** The page of one job: what went wrong, how far it is, what it made, and everything else that the record has. */

import { useNow } from "../clock.js";
import { formatDuration, formatTime } from "../format.js";
import { html, useEffect } from "../html.js";
import { followLink, routeUrl } from "../router.js";
import { ProgressBar, StalledBadge, StateLabel } from "../state_label.js";
import { Details, Metadata, Times } from "./facts.js";
import { choosePreview, progressText, summary } from "./job_model.js";
import { useJob } from "./job_source.js";
import { LongText } from "./long_text.js";
import { Outputs } from "./outputs.js";
import { Preview } from "./preview.js";

export function JobPage({ route: { id }, account }) {
  const source = useJob(id);
  const now = useNow();
  const { job } = source;
  useTitle(id, job);
  return html`<main class="job">
    <${Notices} source=${source} now=${now} />
    ${job ? html`<${Job} job=${job} account=${account} now=${now} />` : html`<${WithoutJob} id=${id} source=${source} />`}
  </main>`;
}

function useTitle(id, job) {
  const state = job && (job.status === "rendering" ? `${Math.floor(job.progress)} %` : job.status);
  useEffect(() => {
    document.title = [state, id, "jobsvc"].filter(Boolean).join(" · ");
  }, [id, state]);
}

function Job({ job, account, now }) {
  const canDownload = account.scopes.some((scope) => scope === "outputs:read" || scope === "admin");
  const isCompleted = job.status === "completed";
  const preview = isCompleted && canDownload && choosePreview(job.outputs ?? []);
  return html`<${Heading} job=${job} now=${now} />
    <div class="columns">
      <div class="results">
        ${isCompleted && html`<${Outputs} job=${job} canDownload=${canDownload} />`}
        ${preview && html`<${Preview} id=${job.id} preview=${preview} />`}
        ${job.logs && html`<${LogTail} job=${job} />`}
      </div>
      <div class="record">
        <${Times} job=${job} now=${now} />
        <${Metadata} metadata=${job.metadata} />
        <${Details} job=${job} />
      </div>
    </div>`;
}

function Heading({ job, now }) {
  return html`<div class="heading">
    <h1><bdi>${job.id}</bdi></h1>
    <${LogLink} id=${job.id}>Log<//>
    ${job.error && html`<p class="notice error"><${LongText} text=${job.error} /></p>`}
    <p class="state-line">
      <${StateLabel} status=${job.status} />${job.stalled && html`<${StalledBadge} />`}
      <span>${summary(job, now)}</span>${job.phase && html`<span class="muted"><${LongText} text=${job.phase} limit=${200} /></span>`}
      <span class="number">${progressText(job)}</span>
    </p>
    <${ProgressBar} job=${job} />
  </div>`;
}

function LogTail({ job }) {
  return html`<section class="card">
    <h2>End of the log</h2>
    <pre class="log-tail" tabindex="0" aria-label="End of the log">${job.logs}</pre>
    <${LogLink} id=${job.id}>Whole log<//>
  </section>`;
}

function LogLink({ id, children }) {
  return html`<a class="button" href=${routeUrl({ job: id, view: "log" })} onClick=${followLink}>${children}</a>`;
}

/** Why the page does not show the current state, if it does not. */
function Notices({ source: { job, isGone, error, retryAt, stale, reload }, now }) {
  const message = isGone && job
    ? "This job no longer exists, or your token may not see it any more. This is its last known state."
    : error
      ? `${problemText(error)} The page tries again in ${formatDuration((retryAt - now) / 1000)}.`
      : stale && `${staleText(stale)} This is the state of ${formatTime(stale.time)}.`;
  return html`<div role="status">${message && html`<p class="notice warning toolbar">
    <span>${message}</span>${error && html`<button onClick=${reload}>Try now</button>`}
  </p>`}</div>`;
}

function problemText(error) {
  return error.status ? error.message : "The service cannot be reached.";
}

function staleText({ reason }) {
  return reason === "record-unreadable" ? "The job's record cannot be read." : "The storage does not respond.";
}

function WithoutJob({ id, source: { isGone } }) {
  return html`<div class="empty">
    <h1><bdi>${id}</bdi></h1>
    <p>${isGone ? "No job with this id exists, or your token may not see it." : "Loading…"}</p>
    <p><a href=${routeUrl({})} onClick=${followLink}>All jobs</a></p>
  </div>`;
}
