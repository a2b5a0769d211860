/** Keeps the state of one job current: a request, then its event stream until the job is final. */

import { jobUrl, request } from "../api.js";
import { useEffect, useState } from "../html.js";
import { parseJob } from "./job_model.js";

const FINAL_INTERVAL_S = 30; // a final job can be queued again, and its output replaced
const MAX_RETRY_S = 60;
const HIDDEN_AFTER_S = 60; // browsers open few connections to a host: tabs that nobody sees give theirs back

/**
 * Return the newest state of a job: `job` (null until it is known), `isGone`, `isLive`, `error` of the last request
 * or null, `retryAt` in milliseconds since the epoch, and `stale`: the reason of an old state and its time, or null.
 */
export function useJob(id) {
  const [state, setState] = useState({ job: null, isGone: false, isLive: false, error: null, stale: null });
  const [source, setSource] = useState(null);
  useEffect(() => {
    const started = new JobSource(id, (change) => setState((before) => ({ ...before, ...change })));
    setSource(started);
    return () => started.stop();
  }, [id]);
  return { ...state, reload: () => source?.load() };
}

class JobSource {
  #id;
  #onChange;
  #stopped = new AbortController();
  #stream = null;
  #mayStream = false;
  #timer = 0;
  #hiddenTimer = 0;
  #failures = 0;

  constructor(id, onChange) {
    this.#id = id;
    this.#onChange = onChange;
    const { signal } = this.#stopped;
    document.addEventListener("visibilitychange", () => this.#onVisibility(), { signal });
    this.load();
  }

  stop() {
    this.#stopped.abort();
    clearTimeout(this.#hiddenTimer);
    this.#disconnect();
  }

  async load() {
    this.#disconnect();
    const { signal } = this.#stopped;
    try {
      const response = await request(jobUrl(this.#id), { signal });
      this.#show(parseJob(await response.text()), { stale: staleness(response.headers) });
      if (this.#mayStream) this.#connect(response.headers.get("ETag"));
    } catch (error) {
      if (!signal.aborted) this.#fail(error);
    }
  }

  #show(job, further = {}) {
    this.#onChange({ job, isGone: false, error: null, ...further });
    this.#mayStream = !job.done && !document.hidden;
    if (this.#mayStream) return;
    this.#failures = 0;
    this.#loadAfter(FINAL_INTERVAL_S);
  }

  #connect(etag) {
    this.#stream?.close(); // of another request at the same time
    const known = etag?.replace(/^W\//, "").replaceAll('"', "") ?? "";
    this.#stream = new EventSource(`${jobUrl(this.#id, "events")}?lastEventId=${known}`);
    this.#stream.addEventListener("open", () => this.#onOpen());
    this.#stream.addEventListener("job", (event) => this.#onJob(parseJob(event.data)));
    this.#stream.addEventListener("removed", () => this.load());
    this.#stream.addEventListener("error", () => this.#onDisconnected());
  }

  #onOpen() {
    this.#failures = 0;
    this.#onChange({ isLive: true });
  }

  #onJob(job) {
    if (job.done) this.#disconnect();
    this.#show(job, { stale: null });
  }

  /** A request tells why the stream has ended, which EventSource does not. */
  #onDisconnected() {
    this.#disconnect();
    this.#loadAfter(Math.min(2 ** this.#failures++, MAX_RETRY_S));
  }

  #fail(error) {
    const seconds = error.retryAfter ?? (error.status === 404 ? FINAL_INTERVAL_S : Math.min(2 ** this.#failures++, MAX_RETRY_S));
    const isGone = error.status === 404;
    this.#onChange({ isGone, error: isGone ? null : error, retryAt: Date.now() + seconds * 1000 });
    if (error.status !== 401) this.#loadAfter(seconds);
  }

  #loadAfter(seconds) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.load(), seconds * 1000);
  }

  #disconnect() {
    clearTimeout(this.#timer);
    this.#stream?.close();
    this.#stream = null;
    this.#onChange({ isLive: false });
  }

  #onVisibility() {
    clearTimeout(this.#hiddenTimer);
    if (!document.hidden && this.#stream === null) this.load();
    if (document.hidden && this.#stream) this.#hiddenTimer = setTimeout(() => this.load(), HIDDEN_AFTER_S * 1000);
  }
}

/** Return why a response is older than usual, and of which time it is; null if storage has confirmed it. */
function staleness(headers) {
  const reason = /detail=([a-z-]+)/.exec(headers.get("Cache-Status") ?? "")?.[1];
  return reason ? { reason, time: Date.now() - Number(headers.get("Age")) * 1000 } : null;
}
