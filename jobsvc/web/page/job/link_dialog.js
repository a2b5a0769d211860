/** The dialog that creates a link for someone without a token. */

import { jobUrl, request } from "../api.js";
import { CopyButton, copyText } from "../copy_button.js";
import { formatTime } from "../format.js";
import { html, useEffect, useRef, useState } from "../html.js";

const LIFETIMES = { "1 hour": 3600, "8 hours": 28_800, "1 day": 86_400 };

/** A button that opens the dialog. `body` is that of the request in the API. */
export function LinkButton(properties) {
  const [isOpen, setIsOpen] = useState(false);
  return html`<button onClick=${() => setIsOpen(true)}>Copy link…</button>
    ${isOpen && html`<${LinkDialog} ...${properties} onClose=${() => setIsOpen(false)} />`}`;
}

function LinkDialog({ id, title, body, onClose }) {
  const dialog = useRef();
  const [{ url, message }, setResult] = useState({});
  useEffect(() => dialog.current.showModal(), []);
  const create = (event) => {
    event.preventDefault();
    createLink(id, { ...body, expiresIn: Number(event.currentTarget.elements.lifetime.value) }).then(setResult);
  };
  return html`<dialog ref=${dialog} class="link-dialog" onClose=${onClose} aria-label="Link">
    <h2>Link to <bdi>${title}</bdi></h2>
    <p>Anyone with the link can open it, without a token, until it expires.</p>
    <form class="toolbar" onSubmit=${create}>
      <label>Expires after <select name="lifetime">
        ${Object.entries(LIFETIMES).map(([text, seconds]) => html`<option value=${seconds}>${text}</option>`)}
      </select></label>
      <button class="primary">Create and copy</button>
    </form>
    ${url && html`<p class="toolbar">
      <input readonly value=${url} aria-label="Link" /><${CopyButton} text=${url}>Copy<//>
    </p>`}
    <p role="status">${message}</p>
    <form method="dialog"><button>Close</button></form>
  </dialog>`;
}

/** Create a link and copy it. Returns its absolute `url` and a `message`, or the reason why there is no link. */
async function createLink(id, body) {
  try {
    const response = await request(jobUrl(id, "download-links"), { method: "POST", body: JSON.stringify(body) });
    const link = await response.json();
    const url = new URL(link.url, response.url).href;
    return { url, message: `${(await copyText(url)) ? "Copied. " : ""}It works until ${formatTime(link.expiresAt)}.` };
  } catch ({ code, message }) {
    return { message: code === "bad-request" ? "This service does not allow links for so long." : message };
  }
}
