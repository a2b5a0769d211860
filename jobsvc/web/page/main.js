/** Starts the page: shows the form if there is no session, otherwise the page of the current route. */

import { onSignedOut } from "./api.js";
import { html, render, useEffect, useRef, useState } from "./html.js";
import { useJobFeed } from "./jobs/job_feed.js";
import { JobListPage } from "./jobs/job_list_page.js";
import { followLink, parseRoute, useRoute } from "./router.js";
import { getAccount, SignInPage, signOut, startSession } from "./session.js";
import { notifyEnd } from "./watched_jobs.js";

const RETRY_MS = 5000;
const whenIdle = globalThis.requestIdleCallback ?? setTimeout; // Safari has only the latter

function show(content) {
  render(content, document.getElementById("app"));
}

function start(session) {
  session.then(enter, ({ status, message }) => {
    if (status === 401) return leave();
    show(html`<p class="empty" role="status">${message} Trying again.</p>`);
    setTimeout(() => start(getAccount()), RETRY_MS);
  });
}

function enter(account) {
  onSignedOut(leave);
  show(html`<${Pages} key=${account.id} account=${account} />`);
}

function leave(reason) {
  show(html`<${SignInPage} reason=${reason} onSignedIn=${enter} />`);
}

function Pages({ account }) {
  const route = useRoute();
  const feed = useJobFeed(account);
  const [pages, setPages] = useState({ jobs: JobListPage });
  const [error, setError] = useState();
  const Page = pages[route.page];
  const rendering = feed.jobs.filter(({ status }) => status === "rendering").length;
  useEffect(() => feed.changed.forEach(notifyEnd), [feed.changed]);
  useEffect(() => {
    if (route.page === "jobs") document.title = rendering ? `(${rendering}) jobsvc` : "jobsvc";
  }, [route.page, rendering]);
  useEffect(() => {
    if (!Page) loadPages().then(setPages, setError);
    else if (feed.status.loaded) whenIdle(() => loadPages().then(setPages, () => {}));
  }, [!Page, feed.status.loaded]);
  return html`<${Header} account=${account} route=${route} status=${feed.status} />
    ${Page && html`<${Page} key=${route.id} route=${route} account=${account} feed=${feed} />`}
    ${!Page && error && html`<p class="empty" role="alert">This page could not be loaded. Reload it to try again.</p>`}`;
}

/** Return all pages. Most people see the list first, and the others are loaded after it. */
async function loadPages() {
  const [{ JobPage }, { LogPage }] = await Promise.all([import("./job/job_page.js"), import("./log/log_page.js")]);
  return { jobs: JobListPage, job: JobPage, log: LogPage };
}

function Header({ account, route, status: { live, since } }) {
  const list = useRef("./");
  if (route.page === "jobs") list.current = location.search || "./"; // with its filter
  return html`<header class="header">
    <nav aria-label="Main"><a href=${route.page === "jobs" ? "./" : list.current} onClick=${followLink}>Jobs</a></nav>
    <span class="live small ${live ? "completed" : "stalled"}" role="status">
      ${live ? "Live" : since ? `Not live since ${new Date(since).toLocaleTimeString()}` : "Connecting"}
    </span>
    <bdi class="owner muted truncate" title=${account.label}>${account.owner}</bdi>
    <button class="quiet" onClick=${signOut}>Sign out</button>
  </header>`;
}

start(startSession());
if (parseRoute(location).id) loadPages().catch(() => {}); // meanwhile; Pages shows errors
