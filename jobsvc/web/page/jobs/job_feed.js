/** The live jobs in this tab, from a SharedWorker, or from a stream of its own in browsers without it. */

import { announceSignedOut, getJson } from "../api.js";
import { useEffect, useState } from "../html.js";
import { openStream, summarize } from "./job_stream.js";

const WORKER = new URL("feed_worker.js", import.meta.url).href;
const policy = globalThis.trustedTypes?.createPolicy("jobsvc", { createScriptURL: () => WORKER });

/**
 * Return the feed of an account until its session ends: all `jobs`, newest first, the `status` as in job_stream.js, and
 * `changed`: the jobs of the last batch.
 */
export function useJobFeed({ id: account }) {
  const [feed, setFeed] = useState({ jobs: [], changed: [], status: { live: false } });
  const [firstJobs, setFirstJobs] = useState([]); // shown until the stream has sent some
  useEffect(() => {
    const known = new Map();
    const end = connect(account, ({ changes, status, signedOut }) => {
      if (signedOut) return announceSignedOut();
      changes.forEach((job, id) => (job ? known.set(id, job) : known.delete(id)));
      setFeed({ jobs: [...known.values()].sort(byAge), changed: [...changes.values()].filter(Boolean), status });
    });
    getJson("api/jobs?limit=100").then(({ jobs }) => setFirstJobs(jobs.map(summarize)), () => {}); // the stream reports errors
    addEventListener("pagehide", () => end({}));
    return () => end({ signedOut: true });
  }, []);
  return feed.jobs.length > 0 || feed.status.loaded ? feed : { ...feed, jobs: firstJobs };
}

addEventListener("pageshow", ({ persisted }) => persisted && location.reload()); // its stream has ended

/** Compare summaries in the order of the API's list: newest first, then by id. */
export function byAge(one, other) {
  return other.created - one.created || (one.id < other.id ? -1 : 1);
}

/** Return a function that ends the calls of `onBatch`, for all tabs if it gets `{signedOut: true}`. */
function connect(account, onBatch) {
  if (!globalThis.SharedWorker) return openStream(account, onBatch).close;
  const { port } = new SharedWorker(policy?.createScriptURL("") ?? WORKER, { type: "module", name: account });
  port.onmessage = ({ data }) => onBatch(data);
  return (message) => port.postMessage(message);
}
