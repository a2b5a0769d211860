/** One event stream for all tabs of a browser: keeps the jobs, and passes changes on in batches. */

import { getJson } from "../api.js";
import { summarize } from "./job_summary.js";

const MOST_JOBS = 20_000;
const BATCH_JOBS = 250;
const BATCH_MS = 100;
const RETRY_MS = 5000;

/**
 * Receivers are called with `{jobs, removed, status}`: summaries of new and changed jobs, ids of removed ones, and
 * the status: `live`, or `since` (ms); `loaded` once all jobs have been sent; `isFull` if old ones were left out.
 */
export class FeedSource {
  #receivers = new Set();
  #stream = null;
  #page;
  #lastEventId;
  #jobs;
  #listed;
  #status;
  #changes = new Map();
  #timer;

  /** Do what a page asks for: "close", "sign-out", or to receive jobs, with its base URL and account `{base, account}`. */
  handle(receive, message) {
    if (message === "close") this.#receivers.delete(receive);
    else if (message === "sign-out") this.#signOut();
    else {
      if (!this.#stream) this.#start(message);
      this.#receivers.add(receive);
      const jobs = [...this.#jobs.values()];
      do receive({ jobs: jobs.splice(0, BATCH_JOBS), removed: [], status: this.#status });
      while (jobs.length);
    }
    if (this.#receivers.size === 0) this.#stop();
  }

  #start(page) {
    this.#page = page;
    this.#lastEventId = "";
    this.#jobs = new Map();
    this.#listed = new Set();
    this.#status = { live: false, since: null, loaded: false };
    this.#connect();
  }

  #stop() {
    this.#stream?.close();
    this.#stream = null;
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#changes.clear();
  }

  #signOut() {
    if (this.#stream) this.#setStatus({ signedOut: true });
    this.#receivers.clear();
  }

  #connect() {
    const query = this.#lastEventId && `?${new URLSearchParams({ lastEventId: this.#lastEventId })}`;
    const stream = (this.#stream = new EventSource(`${this.#page.base}api/events${query}`));
    stream.onopen = () => this.#setStatus({ live: true, since: null });
    stream.onerror = () => this.#onError(stream);
    stream.addEventListener("job", (event) => this.#onJob(event));
    stream.addEventListener("removed", ({ data }) => this.#change(JSON.parse(data).id, null));
    stream.addEventListener("present", (event) => this.#onPresent(event));
  }

  #onJob({ data, lastEventId }) {
    const job = summarize(JSON.parse(data));
    // The jobs that exist are sent without ids, before `present`: this set has those since the last id.
    if (lastEventId !== this.#lastEventId) this.#listed.clear();
    this.#lastEventId = lastEventId;
    this.#listed.add(job.id);
    this.#status.isFull ||= this.#jobs.size >= MOST_JOBS && !this.#status.loaded;
    if (!this.#status.isFull || this.#status.loaded || this.#jobs.has(job.id)) this.#change(job.id, job);
  }

  #onPresent({ lastEventId }) {
    this.#lastEventId = lastEventId;
    for (const id of this.#jobs.keys()) if (!this.#listed.has(id)) this.#change(id, null);
    this.#listed.clear();
    this.#setStatus({ loaded: true });
  }

  /** Find out why the stream has ended. The browser opens it again, unless the response was an error. */
  async #onError(stream) {
    this.#setStatus({ live: false, since: this.#status.since ?? Date.now() });
    const account = await getJson(`${this.#page.base}api/me`).catch((error) => error);
    if (stream !== this.#stream) return;
    // Another tab can have signed in with another token.
    if (account.status === 401 || (account.id && account.id !== this.#page.account)) this.handle(null, "sign-out");
    else if (stream.readyState === EventSource.CLOSED) {
      setTimeout(() => stream === this.#stream && this.#connect(), RETRY_MS * (1 + Math.random()));
    }
  }

  #change(id, job) {
    if (job) this.#jobs.set(id, job);
    else this.#jobs.delete(id);
    this.#changes.set(id, job);
    if (this.#changes.size >= BATCH_JOBS) this.#send();
    else this.#timer ??= setTimeout(() => this.#send(), BATCH_MS);
  }

  #setStatus(change) {
    this.#status = { ...this.#status, ...change };
    this.#send();
  }

  #send() {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const jobs = [...this.#changes.values()].filter(Boolean);
    const removed = [...this.#changes.keys()].filter((id) => !this.#changes.get(id));
    this.#changes.clear();
    this.#receivers.forEach((receive) => receive({ jobs, removed, status: this.#status }));
  }
}
