/** The form that exchanges a token for a session. The token is sent once and kept nowhere. */

import { getAccount, signIn } from "./api.js";
import { html, useEffect, useState } from "./html.js";

export function SignInPage({ reason, onSignedIn }) {
  const [message, setMessage] = useState(reason);
  useEffect(() => {
    // The session is the same in all tabs: one that is shown again can be signed in by now.
    const update = () => document.hidden || getAccount().then(onSignedIn, () => {});
    document.addEventListener("visibilitychange", update);
    return () => document.removeEventListener("visibilitychange", update);
  }, []);
  const submit = async (event) => {
    event.preventDefault();
    const { token } = event.currentTarget.elements;
    try {
      onSignedIn(await signIn(token.value.trim()));
    } catch (error) {
      setMessage(error.status === 401 ? "This token is unknown, expired or revoked." : error.message);
    }
    token.value = "";
  };
  return html`<main class="sign-in">
    <h1>jobsvc</h1>
    <p class="muted">Sign in with the access token that the operator of the farm gave you.</p>
    <form onSubmit=${submit}>
      <label>Token <input name="token" type="password" autocomplete="off" required autofocus /></label>
      <button class="primary">Sign in</button>
      <p role="alert" class="failed">${message}</p>
    </form>
  </main>`;
}
