/** Keeps the state of one job current: requests it whenever the feed of all jobs has a change of it. */

import { jobUrl, request } from "../api.js";
import { useEffect, useRef, useState } from "../html.js";
import { parseJob } from "./job_model.js";

const LEAST_INTERVAL_MS = 1000;
const RETRY_MS = 5000;
const INTERVAL_MS = 30_000; // for what the feed does not report: very old jobs, the state of storage

/**
 * Return the newest state of a job: `job` (null until it is known), `isGone`, `error` of the last request or null, and
 * `staleSince` (ms) if storage has not confirmed the state.
 */
export function useJob(id, feed) {
  const [state, setState] = useState({ job: null });
  const requestedAt = useRef(0);
  const known = feed.jobs.find((job) => job.id === id);
  useEffect(() => {
    let timer;
    const load = async () => {
      requestedAt.current = Date.now();
      const change = await requestJob(id);
      setState((before) => ({ ...before, ...change }));
      if (timer) timer = setTimeout(load, change.error ? (change.error.retryAfter * 1000 || RETRY_MS) : INTERVAL_MS);
    };
    timer = setTimeout(load, requestedAt.current + LEAST_INTERVAL_MS - Date.now());
    return () => {
      clearTimeout(timer);
      timer = null;
    };
  }, [known, feed.status.live]);
  return state;
}

async function requestJob(id) {
  try {
    const response = await request(jobUrl(id));
    const isStale = response.headers.get("Cache-Status")?.includes("detail=");
    const staleSince = isStale ? Date.now() - response.headers.get("Age") * 1000 : undefined;
    return { job: parseJob(await response.text()), isGone: false, error: null, staleSince };
  } catch (error) {
    return error.status === 404 ? { isGone: true, error: null } : { error };
  }
}
