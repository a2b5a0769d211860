/** Starts the page: signs in, then shows the page of the current route. */

import { getAccount, onSignedOut, signIn } from "./api.js";
import { Header } from "./header.js";
import { html, render, useEffect, useState } from "./html.js";
import { JobPage } from "./job/job_page.js";
import { useJobFeed } from "./jobs/job_feed.js";
import { JobListPage } from "./jobs/job_list_page.js";
import { LogPage } from "./log/log_page.js";
import { useRoute } from "./router.js";
import { SignInPage } from "./sign_in_page.js";
import { useNotifications } from "./watched_jobs.js";

const PAGES = { jobs: JobListPage, job: JobPage, log: LogPage };
const RETRY_MS = 5000;

function App() {
  const [account, setAccount] = useState(undefined); // undefined: not known yet; null: signed out
  const [reason, setReason] = useState("");
  const leave = (why) => {
    setReason(why);
    setAccount(null);
  };
  const start = (session) =>
    session.then(setAccount, (error) => {
      if (error.status === 401) return leave("");
      setReason(error.message);
      setTimeout(() => start(startSession()), RETRY_MS);
    });
  useEffect(() => void start(firstSession), []);
  useEffect(() => account && onSignedOut(leave), [account]);
  if (account) return html`<${SignedIn} key=${account.id} account=${account} />`;
  if (account === null) return html`<${SignInPage} reason=${reason} onSignedIn=${setAccount} />`;
  return reason && html`<main class="empty"><h1>Not available yet</h1><p role="status">${reason}</p></main>`;
}

function SignedIn({ account }) {
  const route = useRoute();
  const feed = useJobFeed(account);
  const rendering = feed.jobs.filter(({ status }) => status === "rendering").length;
  useNotifications(feed);
  useEffect(() => {
    if (route.page === "jobs") document.title = rendering ? `(${rendering}) jobsvc` : "jobsvc";
  }, [route.page, rendering]);
  return html`<${Header} account=${account} route=${route} status=${feed.status} />
    <${PAGES[route.page]} key=${route.id} route=${route} account=${account} feed=${feed} />`;
}

/** Return the account of the session. A token in the fragment (`#token=`) is removed from the address at once. */
function startSession() {
  const token = location.hash.startsWith("#token=") ? location.hash.slice("#token=".length) : null;
  if (token === null) return getAccount();
  history.replaceState(null, "", location.pathname + location.search);
  return signIn(token);
}

const firstSession = startSession();
render(html`<${App} />`, document.getElementById("app"));
