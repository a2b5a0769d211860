/** The list of jobs: live, filtered by state and text as its address says, with keys to move in it. */

import { html, useMemo, useRef } from "../html.js";
import { useKeys } from "../keys.js";
import { navigate, routeUrl } from "../router.js";
import { STATES, StateLabel, StalledBadge } from "../state_label.js";
import { filterJobs, filterParameters, parseFilter, toggleState } from "./job_filter.js";
import { JobTable, moveFocus } from "./job_table.js";

export function JobListPage({ route, account, feed }) {
  const search = useRef();
  const list = useRef();
  const filter = useMemo(() => parseFilter(route.query), [route]);
  const { shown, counts } = useMemo(() => filterJobs(feed.jobs, filter), [feed.jobs, filter]);
  const setFilter = (change) => {
    navigate(routeUrl(filterParameters({ ...filter, ...change })), { replace: true });
    scrollTo(0, 0);
  };
  const keys = useKeys([
    [["/"], "Search", () => search.current.select()],
    [["j", "ArrowDown"], "Next job", () => moveFocus(list.current, 1)],
    [["k", "ArrowUp"], "Previous job", () => moveFocus(list.current, -1)],
    [["Enter"], "Open the job", () => false],
  ]);
  return html`<main class="job-list">
    <h1 class="visually-hidden">Jobs</h1>
    <div class="toolbar filter">
      <${StateFilter} filter=${filter} counts=${feed.status.loaded && counts} onChange=${setFilter} />
      <input
        ref=${search}
        type="search"
        aria-label="Search"
        placeholder="Search id, project, error, metadata"
        value=${filter.text}
        onInput=${(event) => setFilter({ text: event.target.value })}
        onKeyDown=${(event) => event.key === "Escape" && event.target.blur()}
      />
    </div>
    ${shown.length ? html`<${JobTable} jobs=${shown} list=${list} />` : html`<${NoJobs} feed=${feed} account=${account} />`}
    ${feed.status.isFull && html`<p class="notice">Only the newest jobs are listed here. The API lists older ones.</p>`}
    ${keys}
  </main>`;
}

function StateFilter({ filter, counts, onChange }) {
  const { states, stalled } = filter;
  const chip = (isPressed, count = 0, label, change) =>
    html`<button class="chip" aria-pressed=${String(isPressed)} onClick=${() => onChange(change)}>
      ${label}<span class="number muted">${counts && count.toLocaleString()}</span>
    </button>`;
  return html`<div class="chips" role="group" aria-label="States">
    ${chip(states.length === 0 && !stalled, counts.all, "All", { states: [], stalled: false })}
    ${STATES.map((state) =>
      chip(states.includes(state), counts[state], html`<${StateLabel} status=${state} />`, toggleState(filter, state)),
    )}
    ${(counts.stalled > 0 || stalled) && chip(stalled, counts.stalled, html`<${StalledBadge} />`, { stalled: !stalled })}
  </div>`;
}

function NoJobs({ feed, account }) {
  if (!feed.status.loaded) {
    const text = feed.status.since ? "The service does not send the jobs now. Trying again every few seconds." : "Loading jobs";
    return html`<p class="empty late" role="status">${text}</p>`;
  }
  if (feed.jobs.length > 0) {
    return html`<div class="empty">
      <h2>No job matches</h2>
      <button onClick=${() => navigate(routeUrl({}))}>Show all jobs</button>
    </div>`;
  }
  return html`<div class="empty">
    <h2>No jobs yet</h2>
    <p>Jobs of <bdi>${account.owner}</bdi> appear here as soon as the farm has written them.</p>
  </div>`;
}
