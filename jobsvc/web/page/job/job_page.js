/** The page of one job: what went wrong, how far it is, what it made, and everything else that the record has. */

import { jobUrl, request } from "../api.js";
import { useNow } from "../clock.js";
import { formatAge, formatDuration, formatSize, formatTime } from "../format.js";
import { html, useEffect, useMemo, useRef, useState } from "../html.js";
import { endText, framesText } from "../jobs/job_row.js";
import { useKeys } from "../keys.js";
import { LineText } from "../log/log_row.js";
import { followLink, navigate, routeUrl } from "../router.js";
import { ProgressBar, StalledBadge, StateLabel } from "../state_label.js";
import { WatchButton } from "../watched_jobs.js";
import { Outputs } from "./outputs.js";

const DETAILS = {
  createdAt: "Created",
  startedAt: "Started",
  estimatedCompletionAt: "Estimated end",
  completedAt: "Ended",
  updatedAt: "Updated",
  attempt: "Attempt",
  sourceStatus: "Farm status",
  projectPath: "Project",
  outputPath: "Output",
  owner: "Owner",
};
const MAX_FACTS = 200;
const MAX_TEXT = 2000;
const LEAST_INTERVAL_MS = 1000;
const RETRY_MS = 5000;
const INTERVAL_MS = 30_000; // for what the feed does not report: very old jobs, the state of storage
const encoder = new TextEncoder();

export function JobPage({ route: { id }, account, feed }) {
  const now = useNow();
  const { job, notice } = useJob(id, feed);
  const logUrl = routeUrl({ job: id, view: "log" });
  const keys = useKeys([[["l"], "Show the log", () => navigate(logUrl)]]);
  const state = job?.status === "rendering" ? `${Math.floor(job.progress)} %` : job?.status;
  const title = [state, id, "jobsvc"].filter(Boolean).join(" · ");
  useEffect(() => void (document.title = title), [title]);
  const record = useMemo(() => job && html`<${Record} job=${job} scopes=${account.scopes} />`, [job]);
  return html`<main class="job">
    <div class="line">
      <h1><bdi>${id}</bdi></h1>
      ${job && !job.done && html`<${WatchButton} id=${id} />`}
      <a class="button" href=${logUrl} onClick=${followLink}>Log</a>
    </div>
    <p role="status" class=${notice && "notice warning"}>${notice}</p>
    ${job?.error && html`<p class="notice error wrap"><bdi>${valueText(job.error)}</bdi></p>`}
    ${job && html`<p class="line">
        <${StateLabel} status=${job.status} />${job.stalled && html`<${StalledBadge} />`}
        <span class="number">${summary(job, now)}</span> <bdi class="wrap muted">${valueText(job.phase ?? "")}</bdi>
      </p>
      <${ProgressBar} job=${job} />`}
    ${record}
    ${keys}
  </main>`;
}

/** Return the newest `job`, once it is known, and a `notice` if that is not its current state. Call it each second. */
function useJob(id, { jobs, status: { live } }) {
  const [state, setState] = useState({ loadedAt: 0 });
  const inFeed = live && jobs.find((job) => job.id === id);
  const intervalMs = inFeed === state.inFeed ? (state.retryMs ?? INTERVAL_MS) : LEAST_INTERVAL_MS;
  const isDue = Date.now() - state.loadedAt >= intervalMs;
  useEffect(() => {
    if (isDue) requestJob(id, state).then((newState) => setState({ inFeed, loadedAt: Date.now(), ...newState }));
  }, [isDue, live, state]); // one request at a time, unless the connection was lost
  return state;
}

async function requestJob(id, { job }) {
  try {
    const response = await request(jobUrl(id));
    const isStale = response.headers.get("Cache-Status")?.includes("detail=");
    const time = formatTime(Date.now() - response.headers.get("Age") * 1000);
    const notice = isStale && `The storage does not confirm this state of ${time}.`;
    return { job: JSON.parse(await response.text(), keepDigits), notice };
  } catch ({ status, message, retryAfter }) {
    if (status !== 404) return { job, notice: `${message} Trying again.`, retryMs: retryAfter * 1000 || RETRY_MS };
    return { job, notice: `No job with this id exists, or your token may not see it.${job ? " Its last state:" : ""}` };
  }
}

/** Return integers that JavaScript cannot represent as text. */
function keepDigits(_name, value, context) {
  return Number.isInteger(value) && !Number.isSafeInteger(value) ? (context?.source ?? value) : value;
}

/** Return a phrase about a job's state at `now`, in milliseconds since the epoch: "3 h ago, took 2 min, 100 %". */
export function summary(job, now) {
  const end = endText(job, now);
  const frames = framesText(job);
  const since = job.status === "queued" ? job.createdAt : (job.startedAt ?? job.updatedAt);
  const times = job.done
    ? [formatAge(job.completedAt ?? job.updatedAt, now), end]
    : [`for ${formatDuration((now - Date.parse(since)) / 1000)}`, end && `ends ${end}`];
  return [...times, `${Math.floor(job.progress)} %`, frames !== "" && `${frames} frames`].filter(Boolean).join(", ");
}

export function valueText(value) {
  const text = typeof value === "string" ? value : JSON.stringify(value);
  return text.length > MAX_TEXT ? `${text.slice(0, MAX_TEXT)}… (${formatSize(text.length)})` : text;
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
