/** Keeps the state of one job current: requests it whenever the feed of all jobs has a change of it. */

import { jobUrl, request } from "../api.js";
import { useEffect, useRef, useState } from "../html.js";
import { parseJob } from "./job_model.js";

const LEAST_INTERVAL_MS = 1000;
const INTERVAL_MS = 30_000; // for changes that the feed does not report: of very old jobs, of storage
const MAX_RETRY_MS = 30_000;

/**
 * Return the newest state of a job: `job` (null until it is known), `isGone`, `error` of the last request or null,
 * `retryAt` (ms), `stale` (`{reason, time}` of a state that storage has not confirmed, or null), and `reload`.
 */
export function useJob(id, feed) {
  const [state, setState] = useState({ job: null, isGone: false, error: null, stale: null });
  const [requested, setRequested] = useState(0);
  const last = useRef({ time: 0, failures: 0 });
  const known = feed.jobs.find((job) => job.id === id);
  useEffect(() => {
    let timer;
    const load = async () => {
      last.current.time = Date.now();
      const change = await requestJob(id);
      last.current.failures = change.error ? last.current.failures + 1 : 0;
      const pause = change.error ? retryPause(change.error, last.current.failures) : INTERVAL_MS;
      setState((before) => ({ ...before, ...change, retryAt: Date.now() + pause }));
      if (timer) timer = setTimeout(load, pause);
    };
    timer = setTimeout(load, last.current.time + LEAST_INTERVAL_MS - Date.now());
    return () => {
      clearTimeout(timer);
      timer = null;
    };
  }, [known, feed.status.live, requested]);
  return { ...state, reload: () => setRequested(requested + 1) };
}

/** Return what a request changes in the state of `useJob`. */
async function requestJob(id) {
  try {
    const response = await request(jobUrl(id));
    const job = parseJob(await response.text());
    return { job, isGone: false, error: null, stale: staleness(response.headers) };
  } catch (error) {
    return error.status === 404 ? { isGone: true, error: null } : { error };
  }
}

function retryPause({ retryAfter }, failures) {
  return retryAfter === null || retryAfter === undefined ? Math.min(500 * 2 ** failures, MAX_RETRY_MS) : retryAfter * 1000;
}

function staleness(headers) {
  const reason = headers.get("Cache-Status")?.match(/detail=([a-z-]+)/)?.[1];
  return reason ? { reason, time: Date.now() - Number(headers.get("Age")) * 1000 } : null;
}
