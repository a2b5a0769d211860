/** The page of one job: what went wrong, how far it is, what it made, and everything else that the record has. */

import { jobUrl } from "../api.js";
import { useNow } from "../clock.js";
import { formatTime } from "../format.js";
import { html, useEffect, useMemo, useRef } from "../html.js";
import { useKeys } from "../keys.js";
import { LineText } from "../log/log_row.js";
import { followLink, navigate, routeUrl } from "../router.js";
import { ProgressBar, StalledBadge, StateLabel } from "../state_label.js";
import { WatchButton } from "../watched_jobs.js";
import { summary, valueText } from "./job_model.js";
import { useJob } from "./job_source.js";
import { Outputs } from "./outputs.js";

const DETAILS = {
  createdAt: "Created",
  startedAt: "Started",
  estimatedCompletionAt: "Estimated end",
  completedAt: "Ended",
  updatedAt: "Updated",
  attempt: "Attempt",
  sourceStatus: "Farm's word",
  projectPath: "Project",
  outputPath: "Output",
  owner: "Owner",
};
const MAX_FACTS = 200;
const encoder = new TextEncoder();

export function JobPage({ route: { id }, account, feed }) {
  const source = useJob(id, feed);
  const { job } = source;
  const notice = noticeText(source);
  const logUrl = routeUrl({ job: id, view: "log" });
  const keys = useKeys([[["l"], "Show the log", () => navigate(logUrl)]]);
  const state = job && (job.status === "rendering" ? `${Math.floor(job.progress)} %` : job.status);
  useEffect(() => {
    document.title = [state, id, "jobsvc"].filter(Boolean).join(" · ");
  }, [state]);
  return html`<main class="job">
    <div class="heading">
      <h1><bdi>${id}</bdi></h1>
      ${job && !job.done && html`<${WatchButton} id=${id} />`}
      <a class="button" href=${logUrl} onClick=${followLink}>Log</a>
    </div>
    <div role="status">${notice && html`<p class="notice warning">${notice}</p>`}</div>
    ${job && html`<${Job} job=${job} scopes=${account.scopes} />`}
    ${keys}
  </main>`;
}

/** Return why the page does not show the current state, if it does not. */
function noticeText({ job, isGone, error, staleSince }) {
  if (error) return `${error.message} Trying again.`;
  if (isGone) return `No job with this id exists, or your token may not see it.${job ? " Its last state:" : ""}`;
  return staleSince && `The storage does not confirm this state of ${formatTime(staleSince)}.`;
}

function Job({ job, scopes }) {
  const canDownload = scopes.includes("outputs:read") || scopes.includes("admin");
  return html`${job.error && html`<p class="notice error wrap"><bdi>${valueText(job.error)}</bdi></p>`}
    <${State} job=${job} />
    <div class="columns">
      <div>
        ${job.logs && html`<${LogTail} logs=${job.logs} />`}
        ${job.status === "completed" && (canDownload
          ? html`<${Outputs} job=${job} />`
          : html`<p class="notice">Downloads need a token with the scope outputs:read.</p>`)}
      </div>
      <div>
        <${Facts} title="Details" values=${details(job)} />
        <${Facts} title="Metadata" values=${job.metadata ?? {}} />
        <a href=${jobUrl(job.id)}>As JSON</a>
      </div>
    </div>`;
}

function State({ job }) {
  return html`<p class="toolbar">
      <${StateLabel} status=${job.status} />${job.stalled && html`<${StalledBadge} />`}
      <span class="number">${summary(job, useNow())}</span> <bdi class="wrap muted">${valueText(job.phase ?? "")}</bdi>
    </p>
    <${ProgressBar} job=${job} />`;
}

/** Return what the document has beside what is above, by its name on the page. */
function details(job) {
  const textOf = (key) => (key.endsWith("At") && job[key] ? formatTime(job[key]) : (job[key] ?? undefined));
  return Object.fromEntries(Object.entries(DETAILS).map(([key, name]) => [name, textOf(key)]));
}

/** Names and values; those that are missing are left out. */
function Facts({ title, values }) {
  const rows = Object.entries(values).filter(([, value]) => value !== undefined);
  return rows.length > 0 && html`<section class="card">
    <h2>${title}</h2>
    <dl class="facts">
      ${rows.slice(0, MAX_FACTS).map(
        ([name, value]) => html`<dt><bdi>${valueText(name)}</bdi></dt>
          <dd class="wrap"><bdi>${valueText(value)}</bdi></dd>`,
      )}
    </dl>
  </section>`;
}

function LogTail({ logs }) {
  const tail = useRef();
  useEffect(() => tail.current.scrollTo(0, tail.current.scrollHeight), [logs]);
  const row = (line) => html`<div><${LineText} bytes=${encoder.encode(line)} query="" /></div>`;
  const lines = useMemo(() => logs.split("\n").map(row), [logs]);
  return html`<section class="card">
    <h2>End of the log</h2>
    <pre ref=${tail} class="log-tail wrap" tabindex="0" aria-label="End of the log">${lines}</pre>
  </section>`;
}
