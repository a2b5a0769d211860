/** What the address shows: `/?status=failed&q=shot` the list, `/?job=ID` a job, `/?job=ID&view=log#L1200` its log. */

import { useListener, useReducer } from "./html.js";

/** Return the route of a location: `{page: "jobs" | "job" | "log", id, query, fragment}`. */
export function parseRoute({ search, hash }) {
  const query = new URLSearchParams(search);
  const id = query.get("job");
  const page = id === null ? "jobs" : query.get("view") === "log" ? "log" : "job";
  return { page, id, query, fragment: hash.slice(1) };
}

/** Return the relative URL of a page: `routeUrl({job: "a", view: "log"}, "L12")`. Empty values are left out. */
export function routeUrl(parameters, fragment = "") {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    for (const each of [value].flat()) if (each) query.append(name, each);
  }
  return (query.size ? `?${query}` : "./") + (fragment && `#${fragment}`);
}

/** Show another page. `replace`: without an entry of its own in the browser's history. */
export function navigate(url, { replace } = {}) {
  history[replace ? "replaceState" : "pushState"](null, "", url);
  dispatchEvent(new Event("popstate")); // which browsers send when anything else changes the address
}

export function useRoute() {
  const [route, update] = useReducer(() => parseRoute(location), location, parseRoute);
  useListener("popstate", update);
  return route;
}

/** Handle a click on a link: show the page without loading the document again. */
export function followLink(event) {
  if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  navigate(event.currentTarget.href);
}
