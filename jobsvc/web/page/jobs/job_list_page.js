/** The list of jobs, filtered as its address says: `?status=failed&status=stalled&q=two+words`. */

import { html, useRef } from "../html.js";
import { useKeys } from "../keys.js";
import { navigate, routeUrl } from "../router.js";
import { STATES, StalledBadge, StateLabel } from "../state_label.js";
import { JobTable, moveFocus } from "./job_table.js";

/** Return the jobs that have each word of a text somewhere. */
export function searchJobs(jobs, text) {
  const words = text.toLowerCase().split(/\s+/);
  return jobs.filter((job) => words.every((word) => job.text.includes(word)));
}

/** Return the jobs of any of the kinds: states, and "stalled"; all jobs without a kind. */
export function selectJobs(jobs, kinds) {
  if (kinds.length === 0) return jobs;
  return jobs.filter(({ status, stalled }) => kinds.includes(status) || (stalled && kinds.includes("stalled")));
}

export function JobListPage({ route: { query }, account, feed: { jobs, status } }) {
  const search = useRef();
  const text = query.get("q") ?? "";
  const kinds = query.getAll("status");
  const found = searchJobs(jobs, text);
  const shown = selectJobs(found, kinds);
  const filter = (change) => {
    navigate(routeUrl({ status: kinds, q: text, ...change }), { replace: true });
    scrollTo(0, 0);
  };
  const keys = useKeys([
    [["/"], "Search", () => search.current.select()],
    [["j", "ArrowDown"], "Next job", () => moveFocus(1)],
    [["k", "ArrowUp"], "Previous job", () => moveFocus(-1)],
    [["Enter"], "Open the job", () => false],
  ]);
  const chip = (label, ofKinds, isPressed, next) =>
    html`<button class="chip" aria-pressed=${String(isPressed)} onClick=${() => filter({ status: next })}>
      ${label}<span class="number muted">${status.loaded && selectJobs(found, ofKinds).length.toLocaleString()}</span>
    </button>`;
  const kindChip = (kind, label) => {
    const others = kinds.filter((other) => other !== kind);
    const isPressed = kinds.includes(kind);
    return chip(label, [kind], isPressed, isPressed ? others : [...kinds, kind]);
  };
  return html`<main class="job-list">
    <h1 class="visually-hidden">Jobs</h1>
    <div class="toolbar filter">
      <div class="chips" role="group" aria-label="States">
        ${chip("All", [], kinds.length === 0, [])}
        ${STATES.map((state) => kindChip(state, html`<${StateLabel} status=${state} />`))}
        ${kindChip("stalled", html`<${StalledBadge} />`)}
      </div>
      <input ref=${search} type="search" aria-label="Search" placeholder="Search id, project, error, metadata"
        value=${text} onInput=${({ target }) => filter({ q: target.value })}
        onKeyDown=${({ key, target }) => key === "Escape" && target.blur()} />
    </div>
    ${shown.length > 0 ? html`<${JobTable} jobs=${shown} />` : noJobs(jobs, status, account)}
    ${status.isFull && html`<p class="notice">Only the newest jobs are listed here. The API lists older ones.</p>`}
    ${keys}
  </main>`;
}

function noJobs(jobs, { loaded, since }, { owner }) {
  if (!loaded) {
    const text = since ? "The service does not send the jobs now. Trying again every few seconds." : "Loading jobs";
    return html`<p class="empty late" role="status">${text}</p>`;
  }
  return html`<div class="empty">
    ${jobs.length > 0
      ? html`<h2>No job matches</h2><button onClick=${() => navigate(routeUrl({}))}>Show all jobs</button>`
      : html`<h2>No jobs yet</h2><p>Jobs of <bdi>${owner}</bdi> appear here as soon as the farm has written them.</p>`}
  </div>`;
}
