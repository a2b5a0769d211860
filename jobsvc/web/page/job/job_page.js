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
import { summary, useJob, valueText } from "./job_state.js";
import { Outputs } from "./outputs.js";

const DETAILS = {
  createdAt: "Created",
  startedAt: "Started",
  estimatedCompletionAt: "Estimated end",
  completedAt: "Ended",
  updatedAt: "Updated",
  attempt: "Attempt",
  sourceStatus: "Status of the farm",
  projectPath: "Project",
  outputPath: "Output",
  owner: "Owner",
};
const MAX_FACTS = 200;
const encoder = new TextEncoder();

export function JobPage({ route: { id }, account, feed }) {
  const now = useNow();
  const { job, notice, isGone } = useJob(id, feed, now);
  const logUrl = routeUrl({ job: id, view: "log" });
  const keys = useKeys([[["l"], "Show the log", () => navigate(logUrl)]]);
  const state = job?.status === "rendering" ? `${Math.floor(job.progress)} %` : job?.status;
  useEffect(() => {
    document.title = [state, id, "jobsvc"].filter(Boolean).join(" · ");
  }, [state]);
  const record = useMemo(() => job && html`<${Record} job=${job} scopes=${account.scopes} />`, [job]);
  return html`<main class="job">
    <div class="line">
      <h1><bdi>${id}</bdi></h1>
      ${job && !job.done && html`<${WatchButton} id=${id} />`}
      <a class="button" href=${logUrl} onClick=${followLink}>Log</a>
    </div>
    <div role="status">
      ${notice && html`<p class="notice warning">${notice}${job && isGone && " Its last state:"}</p>`}
    </div>
    ${job && html`${job.error && html`<p class="notice error wrap"><bdi>${valueText(job.error)}</bdi></p>`}
      <p class="line">
        <${StateLabel} status=${job.status} />${job.stalled && html`<${StalledBadge} />`}
        <span class="number">${summary(job, now)}</span> <bdi class="wrap muted">${valueText(job.phase ?? "")}</bdi>
      </p>
      <${ProgressBar} job=${job} />`}
    ${record}
    ${keys}
  </main>`;
}

function Record({ job, scopes }) {
  const canDownload = scopes.includes("outputs:read") || scopes.includes("admin");
  const details = Object.entries(DETAILS)
    .filter(([key]) => job[key] != null)
    .map(([key, name]) => [name, key.endsWith("At") ? formatTime(job[key]) : job[key]]);
  return html`<div class="columns">
    <div>
      ${job.logs && html`<${LogTail} logs=${job.logs} />`}
      ${job.status === "completed" && (canDownload
        ? html`<${Outputs} job=${job} />`
        : html`<p class="notice">Downloads need a token with the scope outputs:read.</p>`)}
    </div>
    <div>
      <${Facts} title="Details" facts=${details} />
      ${job.metadata && html`<${Facts} title="Metadata" facts=${Object.entries(job.metadata)} />`}
      <a href=${jobUrl(job.id)}>As JSON</a>
    </div>
  </div>`;
}

function Facts({ title, facts }) {
  const rows = facts.slice(0, MAX_FACTS).map(
    ([name, value]) => html`<dt><bdi>${valueText(name)}</bdi></dt><dd class="wrap"><bdi>${valueText(value)}</bdi></dd>`,
  );
  return html`<section class="card"><h2>${title}</h2><dl class="facts">${rows}</dl></section>`;
}

function LogTail({ logs }) {
  const tail = useRef();
  useEffect(() => tail.current.scrollTo(0, tail.current.scrollHeight), [logs]);
  return html`<section class="card">
    <h2>End of the log</h2>
    <pre ref=${tail} class="log-tail wrap" tabindex="0" aria-label="End of the log">
      ${logs.split("\n").map((line) => html`<bdi><${LineText} bytes=${encoder.encode(line)} query="" /></bdi><br />`)}
    </pre>
  </section>`;
}
