/** The live jobs in this tab, from a SharedWorker, or from a stream of its own in browsers without it. */

import { announceSignedOut, getJson, onSignedOut } from "../api.js";
import { useEffect, useState } from "../html.js";
import { FeedSource } from "./feed_source.js";
import { byAge, summarize } from "./job_summary.js";

const FIRST_JOBS = 100; // shown until the feed has sent some

const policy = globalThis.trustedTypes?.createPolicy("jobsvc", { createScriptURL: (url) => url });
const NOTHING = { jobs: [], status: { live: false, since: null, loaded: false }, changed: [] };

/**
 * Return the feed of the account, which must not change: all `jobs` as summaries, newest first, the `status` as in
 * FeedSource, and `changed`: the jobs of the last batch. Each change is another object.
 */
export function useJobFeed(account) {
  const [feed, setFeed] = useState(NOTHING);
  useEffect(() => {
    const ending = new AbortController();
    const { signal } = ending;
    const receive = collect(setFeed);
    const send = connect(account.id, receive);
    const close = () => send("close");
    addEventListener("pagehide", close, { signal });
    addEventListener("pageshow", (event) => event.persisted && location.reload(), { signal });
    const stopListening = onSignedOut(() => send("sign-out"));
    send({ base: new URL("./", location).href, account: account.id });
    getJson(`api/jobs?limit=${FIRST_JOBS}`, { signal }).then(receive.first, () => {}); // the feed reports errors
    return () => {
      ending.abort();
      stopListening();
      close();
    };
  }, []);
  return feed;
}

/** Return a receiver of batches, which calls `onChange` with all jobs; before the first batch, with those of `first`. */
function collect(onChange) {
  const known = new Map();
  let early = [];
  let { status } = NOTHING;
  const show = (changed) => {
    const jobs = known.size || status.loaded ? [...known.values()].sort(byAge) : early;
    onChange({ jobs, status, changed });
  };
  const receive = (batch) => {
    if (batch.status.signedOut) return announceSignedOut();
    batch.jobs.forEach((job) => known.set(job.id, job));
    batch.removed.forEach((id) => known.delete(id));
    status = batch.status;
    show(batch.jobs);
  };
  receive.first = ({ jobs }) => {
    early = jobs.map(summarize);
    show([]);
  };
  return receive;
}

/** Return a function that sends messages to the source of jobs, which calls `receive`. */
function connect(name, receive) {
  if (!globalThis.SharedWorker) {
    const source = new FeedSource();
    return (message) => source.handle(receive, message);
  }
  const url = new URL("feed_worker.js", import.meta.url).href;
  const { port } = new SharedWorker(policy?.createScriptURL(url) ?? url, { type: "module", name });
  port.onmessage = ({ data }) => receive(data);
  return (message) => port.postMessage(message);
}
