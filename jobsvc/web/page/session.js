/** How a session starts, by a token that is sent once and kept nowhere, and how it ends. */

import { announceSignedOut, getJson, request } from "./api.js";
import { html, useListener, useState } from "./html.js";

/** Return what the API tells about the token of the session. Throws Error with status 401 if there is none. */
export function getAccount() {
  return getJson("api/me");
}

async function signIn(token) {
  await request("ui/session", { method: "POST", headers: { Authorization: `Bearer ${token}` } });
  return getAccount();
}

/** Sign in with the token of the fragment (`#token=`), which is removed at once, or return the account as it is. */
export function startSession() {
  const [, token] = location.hash.split("#token=");
  if (!token) return getAccount();
  history.replaceState(null, "", location.pathname + location.search);
  return signIn(token);
}

export async function signOut() {
  await request("ui/session", { method: "DELETE" });
  announceSignedOut("");
}

export function SignInPage({ reason, onSignedIn }) {
  const [message, setMessage] = useState(reason);
  // The session is the same in all tabs: one that is shown again can be signed in by now.
  useListener("visibilitychange", () => document.hidden || getAccount().then(onSignedIn, () => {}));
  const submit = async (event) => {
    event.preventDefault();
    const { token } = event.target.elements;
    await signIn(token.value.trim()).then(onSignedIn, (error) => setMessage(error.message));
    token.value = "";
  };
  return html`<main class="sign-in">
    <h1>jobsvc</h1>
    <p class="muted">Sign in with the access token from the operator of your farm.</p>
    <form onSubmit=${submit}>
      <label>Token <input name="token" type="password" autocomplete="off" required autofocus /></label>
      <button class="primary">Sign in</button>
      <p role="alert" class="failed">${message}</p>
    </form>
  </main>`;
}
