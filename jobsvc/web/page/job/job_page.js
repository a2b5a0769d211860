/** The page of one job: what went wrong, how far it is, what it made, and everything else that the record has. */

import { useNow } from "../clock.js";
import { formatDuration, formatTime } from "../format.js";
import { html, useEffect, useMemo, useRef } from "../html.js";
import { useKeys } from "../keys.js";
import { LineText } from "../log/log_row.js";
import { followLink, navigate, routeUrl } from "../router.js";
import { ProgressBar, StalledBadge, StateLabel } from "../state_label.js";
import { WatchButton } from "../watched_jobs.js";
import { Details, LongText, Metadata } from "./facts.js";
import { progressText, summary } from "./job_model.js";
import { useJob } from "./job_source.js";
import { Outputs } from "./outputs.js";

const encoder = new TextEncoder();

export function JobPage({ route: { id }, account, feed }) {
  const source = useJob(id, feed);
  const now = useNow();
  const keys = useKeys([
    [["l"], "Show the log", () => navigate(routeUrl({ job: id, view: "log" }))],
    [["u"], "Back to the list", () => navigate(routeUrl({}))],
  ]);
  const { job } = source;
  const state = job && (job.status === "rendering" ? `${Math.floor(job.progress)} %` : job.status);
  useEffect(() => {
    document.title = [state, id, "jobsvc"].filter(Boolean).join(" · ");
  }, [id, state]);
  return html`<main class="job">
    <${Notice} source=${source} now=${now} />
    ${job ? html`<${Job} job=${job} account=${account} now=${now} />` : html`<${NoJob} id=${id} isGone=${source.isGone} />`}
    ${keys}
  </main>`;
}

/** Why the page does not show the current state, if it does not. */
function Notice({ source, now }) {
  const { error, retryAt, reload } = source;
  const text = noticeText(source);
  return html`<div class=${text ? "notice warning" : ""}>
    <span role="status">${text}</span>${" "}
    ${error && html`Next attempt in ${formatDuration((retryAt - now) / 1000)}. <button onClick=${reload}>Try now</button>`}
  </div>`;
}

function noticeText({ job, isGone, error, stale }) {
  if (error) return error.status ? error.message : "The service cannot be reached.";
  if (isGone) return job && "This job no longer exists, or your token may not see it any more. This is its last state.";
  if (!stale) return "";
  const reason = stale.reason === "record-unreadable" ? "The record of the job cannot be read." : "The storage does not respond.";
  return `${reason} This is its state of ${formatTime(stale.time)}.`;
}

function NoJob({ id, isGone }) {
  return html`<div class="empty">
    <h1><bdi>${id}</bdi></h1>
    <p>${isGone ? "No job with this id exists, or your token may not see it." : "Loading…"}</p>
    <p><a href=${routeUrl({})} onClick=${followLink}>All jobs</a></p>
  </div>`;
}

function Job({ job, account: { scopes }, now }) {
  const canDownload = scopes.includes("outputs:read") || scopes.includes("admin");
  return html`<${Heading} job=${job} now=${now} />
    <div class="columns">
      ${job.status === "completed" && html`<div>
        ${canDownload ? html`<${Outputs} job=${job} />` : html`<p class="notice">Downloads need a token with the scope outputs:read.</p>`}
      </div>`}
      ${job.logs && html`<${LogTail} job=${job} />`}
      <div class="record">
        <${Details} job=${job} />
        <${Metadata} metadata=${job.metadata} />
      </div>
    </div>`;
}

function Heading({ job, now }) {
  return html`<div class="heading">
    <h1><bdi>${job.id}</bdi></h1>
    <div class="toolbar">
      ${!job.done && html`<${WatchButton} id=${job.id} />`}
      <${LogLink} id=${job.id}>Log<//>
    </div>
    ${job.error && html`<p class="notice error"><${LongText} text=${job.error} /></p>`}
    <p class="state-line">
      <span><${StateLabel} status=${job.status} /> ${summary(job, now)}</span>
      ${job.stalled && html`<${StalledBadge} />`}
      <span class="number">${progressText(job)}</span>
      ${job.phase && html`<span><${LongText} text=${job.phase} limit=${100} /></span>`}
    </p>
    ${job.status !== "completed" && html`<${ProgressBar} job=${job} />`}
  </div>`;
}

function LogTail({ job: { id, logs } }) {
  const text = useRef();
  useEffect(() => {
    text.current.scrollTop = text.current.scrollHeight;
  }, [logs]);
  const lines = useMemo(() => logs.split("\n").map((line) => html`<div><${LineText} bytes=${encoder.encode(line)} query="" /></div>`), [logs]);
  return html`<section class="card">
    <h2>End of the log</h2>
    <pre ref=${text} class="log-tail" tabindex="0" aria-label="End of the log">${lines}</pre>
    <${LogLink} id=${id}>Whole log<//>
  </section>`;
}

function LogLink({ id, children }) {
  return html`<a class="button" href=${routeUrl({ job: id, view: "log" })} onClick=${followLink}>${children}</a>`;
}
