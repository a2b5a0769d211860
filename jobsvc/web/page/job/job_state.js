/** The state of one job, kept current, and in words. */

import { jobUrl, request } from "../api.js";
import { formatAge, formatDuration, formatSize, formatTime } from "../format.js";
import { useEffect, useState } from "../html.js";
import { endText, framesText } from "../jobs/job_row.js";

const LEAST_INTERVAL_MS = 1000;
const RETRY_MS = 5000;
const INTERVAL_MS = 30_000; // for what the feed does not report: very old jobs, the state of storage
const MAX_TEXT = 2000;

/**
 * Return the newest `job`, once it is known, a `notice` if that is not its state at `now`, and whether it `isGone`.
 * It is requested when the feed has a change of it.
 */
export function useJob(id, { jobs, status: { live } }, now) {
  const [state, setState] = useState({ loadedAt: 0, intervalMs: 0 });
  const inFeed = live && jobs.find((job) => job.id === id);
  const isDue = now - state.loadedAt >= (inFeed === state.inFeed ? state.intervalMs : LEAST_INTERVAL_MS);
  useEffect(() => {
    const update = (change) =>
      setState(({ job }) => ({ job, inFeed, loadedAt: Date.now(), intervalMs: INTERVAL_MS, ...change }));
    if (isDue) requestJob(id).then(update);
  }, [isDue, live, state]); // one request at a time, unless the connection was lost
  return state;
}

async function requestJob(id) {
  try {
    const response = await request(jobUrl(id));
    const { headers } = response;
    const time = formatTime(Date.now() - headers.get("Age") * 1000);
    const isStale = headers.get("Cache-Status")?.includes("detail=");
    const notice = isStale && `The storage does not confirm this state of ${time}.`;
    return { notice, job: JSON.parse(await response.text(), keepDigits) };
  } catch ({ status, message, retryAfter }) {
    if (status === 404) return { notice: "No job with this id exists, or your token may not see it.", isGone: true };
    return { notice: `${message} Trying again.`, intervalMs: retryAfter * 1000 || RETRY_MS };
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

/** Return a value of the farm as text; long ones are cut. */
export function valueText(value) {
  const text = typeof value === "string" ? value : JSON.stringify(value);
  return text.length > MAX_TEXT ? `${text.slice(0, MAX_TEXT)}… (${formatSize(text.length)})` : text;
}
