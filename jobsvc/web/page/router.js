/**
 * What the address shows: `/?status=failed&q=shot` the list, `/?job=ID` a job, `/?job=ID&view=log#L1200` its log.
 * `parseRoute` and `routeUrl` are pure functions.
 */

import { useEffect, useState } from "./vendor/hooks.mjs";

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
  const text = query.toString();
  return (text ? `?${text}` : "./") + (fragment ? `#${fragment}` : "");
}

/** Show another page. `replace`: without an entry of its own in the browser's history. */
export function navigate(url, { replace = false } = {}) {
  history[replace ? "replaceState" : "pushState"](null, "", url);
  dispatchEvent(new Event("routechange"));
}

/** Return the current route, and render again when it changes. */
export function useRoute() {
  const [route, setRoute] = useState(() => parseRoute(location));
  useEffect(() => {
    const update = () => setRoute(parseRoute(location));
    const events = ["routechange", "popstate", "hashchange"];
    events.forEach((name) => addEventListener(name, update));
    return () => events.forEach((name) => removeEventListener(name, update));
  }, []);
  return route;
}

/** Handler of clicks on links of the page: shows the page without loading the document again. */
export function followLink(event) {
  if (event.defaultPrevented || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  navigate(event.currentTarget.getAttribute("href"));
}
