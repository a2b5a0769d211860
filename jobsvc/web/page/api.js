/** Requests to the service. URLs are relative, so that the page also works below a path of a proxy. */

/** An error response: `status`, `code` and `detail` as in docs/api.md, `retryAfter` in seconds or null. */
export class ApiError extends Error {
  constructor(status, problem, retryAfter) {
    super(problem.detail ?? `The service responded with status ${status}.`);
    this.status = status;
    this.code = problem.code ?? "internal";
    this.retryAfter = retryAfter;
  }
}

const signedOutListeners = new Set();

/** Call `listener` whenever a response says that the session has ended. Returns a function that stops this. */
export function onSignedOut(listener) {
  signedOutListeners.add(listener);
  return () => signedOutListeners.delete(listener);
}

/** Tell all listeners that the session has ended, with a text that says so. */
export function announceSignedOut(reason = "The session has ended.") {
  signedOutListeners.forEach((listener) => listener(reason));
}

/** Send a request and return the response. Throws ApiError, and TypeError if the service is not reachable. */
export async function request(path, options = {}) {
  const response = await fetch(path, { cache: "no-cache", ...options }).catch(explain);
  if (response.ok) return response;
  const problem = await response.json().catch(() => ({}));
  if (response.status === 401 && !options.headers?.Authorization) announceSignedOut();
  const retryAfter = response.headers.get("Retry-After");
  throw new ApiError(response.status, problem, retryAfter === null ? null : Number(retryAfter));
}

/** Throw what fetch did, but say of a TypeError what it means: browsers say "Failed to fetch" or worse. */
function explain(error) {
  throw error instanceof TypeError ? new TypeError("The service can't be reached.", { cause: error }) : error;
}

export async function getJson(path, options) {
  return (await request(path, options)).json();
}

/** Return the token of the session: id, owner, scopes, label, expiresAt. Throws ApiError 401 if there is none. */
export function getAccount() {
  return getJson("api/me");
}

/** Exchange a token for a session cookie. Throws ApiError 401 if it is not valid. */
export async function signIn(token) {
  await request("ui/session", { method: "POST", headers: { Authorization: `Bearer ${token}` } });
  return getAccount();
}

export async function signOut() {
  await request("ui/session", { method: "DELETE" });
  announceSignedOut("");
}

/** The URL of a job's resource: `jobUrl(id, "logs")`. */
export function jobUrl(id, ...parts) {
  return ["api/jobs", encodeURIComponent(id), ...parts].join("/");
}
