/** The form that exchanges a token for a session. The token is sent once and kept nowhere. */

import { signIn } from "./api.js";
import { html, useState } from "./html.js";

export function SignInPage({ failure, onSignedIn }) {
  const [message, setMessage] = useState(failure?.message ?? "");
  const submit = async (event) => {
    event.preventDefault();
    const field = event.currentTarget.elements.token;
    try {
      onSignedIn(await signIn(field.value.trim()));
    } catch (error) {
      setMessage(error.status === 401 ? "This token is unknown, expired or revoked." : error.message);
    }
    field.value = "";
  };
  return html`<main class="sign-in">
    <h1>jobsvc</h1>
    <form onSubmit=${submit}>
      <label>Token <input name="token" type="password" autocomplete="off" required autofocus /></label>
      <button class="primary">Sign in</button>
      <p role="alert" class="failed">${message}</p>
    </form>
  </main>`;
}
