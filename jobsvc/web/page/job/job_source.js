/** Keeps the state of one job current: a request, then its event stream until the job is final. */

import { jobUrl, request } from "../api.js";
import { useEffect, useRef, useState } from "../html.js";
import { parseJob } from "./job_model.js";

const FINAL_INTERVAL_S = 30; // a final job can be queued again, and its output replaced
const MAX_PAUSE_S = 60;
const STABLE_MS = 10_000;
const HIDDEN_MS = 60_000; // browsers open few connections to a host: tabs that nobody sees give theirs back

/**
 * Return the newest state of a job: `job` (null until it is known), `isGone`, `error` of the last request or null,
 * `retryAt` (ms), `stale` (`{reason, time}` of a state that storage has not confirmed, or null), and `reload`.
 */
export function useJob(id) {
  const [state, setState] = useState({ job: null, isGone: false, error: null, stale: null });
  const reload = useRef();
  useEffect(() => {
    let following;
    let timer;
    reload.current = () => {
      following?.abort();
      following = new AbortController();
      follow(id, (change) => setState((before) => ({ ...before, ...change })), following.signal);
    };
    const onVisibility = () => {
      clearTimeout(timer);
      timer = setTimeout(reload.current, document.hidden ? HIDDEN_MS : 0);
    };
    document.addEventListener("visibilitychange", onVisibility);
    reload.current();
    return () => {
      clearTimeout(timer);
      following.abort();
      document.removeEventListener("visibilitychange", onVisibility);
    };
  }, [id]);
  return { ...state, reload: () => reload.current() };
}

async function follow(id, onChange, signal) {
  for (let failures = 0; !signal.aborted; ) {
    let seconds = FINAL_INTERVAL_S;
    try {
      const response = await request(jobUrl(id), { signal });
      const job = parseJob(await response.text());
      onChange({ job, isGone: false, error: null, stale: staleness(response.headers) });
      if (!job.done && !document.hidden) {
        const startedAt = Date.now();
        await stream(id, response.headers.get("ETag"), onChange, signal);
        failures = Date.now() - startedAt > STABLE_MS ? 0 : failures + 1;
        seconds = Math.min(2 ** failures / 2, MAX_PAUSE_S);
      }
    } catch (error) {
      if (signal.aborted || error.status === 401) return;
      const isGone = error.status === 404;
      if (!isGone) seconds = error.retryAfter ?? Math.min(2 ** failures++, MAX_PAUSE_S);
      onChange({ isGone, error: isGone ? null : error, retryAt: Date.now() + seconds * 1000 });
    }
    await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
  }
}

/** Pass on each state after the one with the entity tag, until the job is final or the stream ends: a request tells why. */
function stream(id, etag, onChange, signal) {
  return new Promise((resolve) => {
    const source = new EventSource(`${jobUrl(id, "events")}?lastEventId=${etag?.match(/"(.*)"/)?.[1] ?? ""}`);
    const end = () => resolve(source.close());
    source.addEventListener("job", ({ data }) => {
      const job = parseJob(data);
      onChange({ job, stale: null });
      if (job.done) end();
    });
    source.addEventListener("removed", end);
    source.addEventListener("error", end);
    signal.addEventListener("abort", end);
  });
}

function staleness(headers) {
  const reason = headers.get("Cache-Status")?.match(/detail=([a-z-]+)/)?.[1];
  return reason ? { reason, time: Date.now() - Number(headers.get("Age")) * 1000 } : null;
}
