/** Which jobs the list shows, as its address says: `?status=failed&status=canceled&stalled=1&q=two+words`. Pure functions. */

import { STATES } from "../state_label.js";

/** Return the filter of a query: `{states, stalled, text}`. */
export function parseFilter(query) {
  const states = query.getAll("status").filter((status) => STATES.includes(status));
  return { states, stalled: query.get("stalled") === "1", text: query.get("q") ?? "" };
}

/** Return the parameters of a filter for `routeUrl`. */
export function filterParameters({ states, stalled, text }) {
  return { status: states, stalled: stalled ? "1" : "", q: text };
}

/**
 * Return the jobs that match, in the same order, and how many jobs match the text alone: in each state, `stalled` and
 * `all`. The text matches if each of its words is somewhere in the job.
 */
export function filterJobs(jobs, { states, stalled, text }) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  const counts = { all: 0, stalled: 0 };
  const shown = [];
  for (const job of jobs) {
    if (!words.every((word) => job.text.includes(word))) continue;
    counts.all += 1;
    counts[job.status] = (counts[job.status] ?? 0) + 1;
    if (job.stalled) counts.stalled += 1;
    if (stalled && !job.stalled) continue;
    if (states.length === 0 || states.includes(job.status)) shown.push(job);
  }
  return { shown, counts };
}

/** Return the filter with a state added, or removed if it is there. */
export function toggleState(filter, state) {
  const states = filter.states.includes(state)
    ? filter.states.filter((other) => other !== state)
    : STATES.filter((other) => other === state || filter.states.includes(other));
  return { ...filter, states };
}
