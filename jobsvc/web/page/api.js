/** Requests to the service. URLs are relative, so that the page also works below a path of a proxy. */

let signedOut = () => {};

/** Call `listener` with the reason when the session has ended. */
export function onSignedOut(listener) {
  signedOut = listener;
}

export function announceSignedOut(reason = "The session has ended.") {
  signedOut(reason);
}

/** Return the response if it is ok, otherwise throw Error with `status`, `code` and `retryAfter` in seconds. */
export async function request(path, options = {}) {
  const response = await fetch(path, { cache: "no-cache", ...options }).catch((error) => {
    throw error instanceof TypeError ? new Error("The service can't be reached.") : error; // not "Failed to fetch"
  });
  const { ok, status, headers } = response;
  if (ok) return response;
  const { code, detail = `The service responded with status ${status}.` } = await response.json().catch(() => ({}));
  if (status === 401 && !options.headers?.Authorization) announceSignedOut();
  throw Object.assign(new Error(detail), { status, code, retryAfter: Number(headers.get("Retry-After") ?? 5) });
}

export async function getJson(path, options) {
  return (await request(path, options)).json();
}

/** Return the URL of a job's resource: `jobUrl(id, "logs")`. */
export function jobUrl(id, ...parts) {
  return ["api/jobs", encodeURIComponent(id), ...parts].join("/");
}
