/** The list of jobs, filtered as its address says: `?status=failed&status=stalled&q=two+words`. */

import { html } from "../html.js";
import { useKeys } from "../keys.js";
import { navigate, routeUrl } from "../router.js";
import { STATES, StalledBadge, StateLabel } from "../state_label.js";
import { JobTable, moveFocus } from "./job_table.js";

/** Return the jobs that have each word of a text somewhere. */
export function searchJobs(jobs, text) {
  const words = text.toLowerCase().split(/\s+/);
  return jobs.filter((job) => words.every((word) => job.text.includes(word)));
}

/** Return the jobs in any of the states, of which one is "stalled"; all jobs without a state. */
export function selectJobs(jobs, states) {
  const isSelected = ({ status, stalled }) => states.includes(status) || (stalled && states.includes("stalled"));
  return states.length > 0 ? jobs.filter(isSelected) : jobs;
}

export function JobListPage({ route: { query }, account, feed: { jobs, status } }) {
  const text = query.get("q") ?? "";
  const states = query.getAll("status");
  const found = searchJobs(jobs, text);
  const shown = selectJobs(found, states);
  const filter = (change) => {
    navigate(routeUrl({ status: states, q: text, ...change }), { replace: true });
    scrollTo(0, 0);
  };
  const chip = (label, isPressed, ofStates, next) =>
    html`<button class="chip" aria-pressed=${String(isPressed)} onClick=${() => filter({ status: next })}>
      ${label}<span class="number muted">${status.loaded && selectJobs(found, ofStates).length.toLocaleString()}</span>
    </button>`;
  const stateChip = (state) => {
    const Label = state === "stalled" ? StalledBadge : StateLabel;
    const others = states.filter((other) => other !== state);
    const isPressed = others.length < states.length;
    return chip(html`<${Label} status=${state} />`, isPressed, [state], isPressed ? others : [...states, state]);
  };
  const keys = useKeys([
    [["/"], "Search", () => document.querySelector("[type=search]").select()],
    [["j", "ArrowDown"], "Next job", () => moveFocus(1)],
    [["k", "ArrowUp"], "Previous job", () => moveFocus(-1)],
    [["Enter"], "Open the job", () => false],
  ]);
  return html`<main class="job-list">
    <h1 class="visually-hidden">Jobs</h1>
    <div class="toolbar filter">
      <div class="chips" role="group" aria-label="States">
        ${chip("All", states.length === 0, [], [])}${[...STATES, "stalled"].map(stateChip)}
      </div>
      <input type="search" aria-label="Search" placeholder="Search id, project, error, metadata"
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
  const [title, text] = jobs.length > 0
    ? ["No job matches", html`<button onClick=${() => navigate("./")}>Show all jobs</button>`]
    : ["No jobs yet", html`Jobs of <bdi>${owner}</bdi> appear here as soon as the farm has written them.`];
  return html`<div class="empty"><h2>${title}</h2>${text}</div>`;
}
