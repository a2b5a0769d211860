/** The header of all pages: the way back to the list, whether the jobs are live, and the account. */

import { signOut } from "./api.js";
import { html, useRef } from "./html.js";
import { followLink, routeUrl } from "./router.js";

export function Header({ account, route, status: { live, since } }) {
  const list = useRef(routeUrl({}));
  if (route.page === "jobs") list.current = location.search || routeUrl({}); // with its filter
  const state = live ? "Live" : since ? `Not live since ${new Date(since).toLocaleTimeString()}` : "Connecting";
  return html`<header class="header">
    <nav aria-label="Main">
      <a href=${route.page === "jobs" ? routeUrl({}) : list.current} onClick=${followLink}>
        <img src=${new URL("icon.svg", import.meta.url).href} alt="" />Jobs
      </a>
    </nav>
    <span class="live small ${live ? "completed" : "stalled"}" role="status">${state}</span>
    <span class="owner muted truncate" title=${account.label}><bdi>${account.owner}</bdi></span>
    <button class="quiet" onClick=${signOut}>Sign out</button>
  </header>`;
}
