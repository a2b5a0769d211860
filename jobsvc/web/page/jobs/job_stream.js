/** The event stream of all jobs: keeps what the list shows of each, and passes changes on in batches. */

import { getJson } from "../api.js";

const API = new URL("../../../api/", import.meta.url); // in a worker, too
const MOST_JOBS = 20_000;
const BATCH_MS = 100;
const RETRY_MS = 5000;
const KEPT = ["id", "status", "done", "stalled", "owner", "progress", "framesDone", "framesTotal", "phase", "error", "text",
  "created", "createdAt", "startedAt", "completedAt", "estimatedCompletionAt"];

/** Return what is kept of a job of the API, with a `text` to search in. A copy: the start of a string refers to all of it. */
export function summarize(job) {
  const { id, owner, projectPath, metadata, createdAt } = job;
  const [phase, error] = [job.phase, job.error].map((text) => text?.slice(0, 500));
  const texts = [id, owner, projectPath, phase, error, JSON.stringify(metadata)].filter(Boolean);
  const text = texts.join("\n").slice(0, 2000).toLowerCase();
  return JSON.parse(JSON.stringify({ ...job, phase, error, text, created: Date.parse(createdAt) }, KEPT));
}

/**
 * Open the stream. `onBatch` gets `{changes, status}`: summaries by id, null of removed jobs; or `{signedOut: true}`. In the
 * status are `live`, or `since` when not (ms); `loaded` once all jobs are known; `isFull` if old ones were left out.
 */
export function openStream(account, onBatch) {
  const jobs = new Map();
  const listed = new Set();
  const status = { live: false };
  let changes = new Map();
  let lastEventId = "";
  let events;

  function send(statusChange) {
    onBatch({ changes, status: Object.assign(status, statusChange) });
    changes = new Map();
  }

  function change(id, job) {
    if (changes.size === 0) setTimeout(() => changes.size > 0 && send(), BATCH_MS);
    changes.set(id, job);
    if (job) jobs.set(id, job);
    else jobs.delete(id);
  }

  function onJob(event) {
    const job = summarize(JSON.parse(event.data));
    // All jobs come without ids before `present`, newest first: `listed` has those since the last id.
    if (event.lastEventId !== lastEventId) listed.clear();
    lastEventId = event.lastEventId;
    status.isFull ||= listed.size >= MOST_JOBS;
    if (listed.size >= MOST_JOBS && !jobs.has(job.id)) return;
    listed.add(job.id);
    change(job.id, job);
  }

  function onPresent(event) {
    lastEventId = event.lastEventId;
    for (const id of jobs.keys()) if (!listed.has(id)) change(id, null);
    listed.clear();
    send({ loaded: true });
  }

  /** Find out why the stream has ended. The browser opens it again, unless the response was an error. */
  async function onError({ target }) {
    send({ live: false, since: status.since ?? Date.now() });
    const me = await getJson(`${API}me`).catch((error) => error);
    if (target !== events) return;
    // Another tab can have signed in with another token.
    if (me.status === 401 || (me.id && me.id !== account)) onBatch({ signedOut: true });
    else if (target.readyState === EventSource.CLOSED) {
      setTimeout(() => target === events && connect(), RETRY_MS * (1 + Math.random()));
    }
  }

  function connect() {
    events = new EventSource(`${API}events?${new URLSearchParams({ lastEventId })}`);
    events.onopen = () => send({ live: true, since: null });
    events.onerror = onError;
    events.addEventListener("job", onJob);
    events.addEventListener("removed", ({ data }) => change(JSON.parse(data).id, null));
    events.addEventListener("present", onPresent);
  }

  function close() {
    events?.close();
    events = null;
  }

  connect();
  return { jobs, status, close };
}
