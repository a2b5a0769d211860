/** The dialog that creates a link for someone without a token. */

import { jobUrl, request } from "../api.js";
import { CopyButton, copyText } from "../copy_button.js";
import { formatTime } from "../format.js";
import { html, useEffect, useRef, useState } from "../html.js";

const LIFETIMES = { "1 hour": 3600, "8 hours": 28_800, "1 day": 86_400 };

/** A button that opens the dialog. `body` is that of the request in the API; `canShow`: a browser can show the file. */
export function LinkButton(properties) {
  const [isOpen, setIsOpen] = useState(false);
  return html`<button onClick=${() => setIsOpen(true)} aria-haspopup="dialog">Copy link…</button>
    ${isOpen && html`<${LinkDialog} ...${properties} onClose=${() => setIsOpen(false)} />`}`;
}

function LinkDialog({ id, title, body, canShow, onClose }) {
  const dialog = useRef();
  const [link, setLink] = useState(null);
  const [message, setMessage] = useState("");
  useEffect(() => dialog.current.showModal(), []);
  const create = (event) => {
    event.preventDefault();
    const { expiresIn, ...choices } = Object.fromEntries(new FormData(event.currentTarget));
    const inline = choices.inline && true;
    createLink(id, { ...body, ...choices, inline, expiresIn: Number(expiresIn) }).then(setLink, (error) => setMessage(messageOf(error)));
  };
  return html`<dialog ref=${dialog} class="link-dialog" onClose=${onClose} aria-labelledby="link-title">
    <h2 id="link-title">Link to <bdi>${title}</bdi></h2>
    <p>Whoever has the link can download this without a token until it expires.</p>
    ${link ? html`<${Link} ...${link} />` : html`<${LinkForm} isArchive=${body.archive} canShow=${canShow} onSubmit=${create} />`}
    <p class="failed" role="alert">${message}</p>
    <form method="dialog"><button>${link ? "Done" : "Cancel"}</button></form>
  </dialog>`;
}

function LinkForm({ isArchive, canShow, onSubmit }) {
  const options = Object.entries(LIFETIMES).map(([text, seconds]) => html`<option value=${seconds}>${text}</option>`);
  return html`<form class="toolbar" onSubmit=${onSubmit}>
    ${isArchive && html`<label>Format <select name="archive"><option>zip</option><option>tar</option></select></label>`}
    <label>Expires after <select name="expiresIn">${options}</select></label>
    ${canShow && html`<label><input type="checkbox" name="inline" checked /> Opens in the browser</label>`}
    <button class="primary">Create and copy</button>
  </form>`;
}

function Link({ url, expiresAt, isCopied }) {
  return html`<p class="toolbar">
      <input class="mono" readonly value=${url} aria-label="Link" onFocus=${(event) => event.currentTarget.select()} />
      <${CopyButton} text=${url}>Copy<//>
    </p>
    <p role="status">${isCopied && "Copied. "}It works until ${formatTime(expiresAt)}.</p>`;
}

function messageOf({ code, message }) {
  return code === "bad-request" ? "This service does not allow links for so long. Choose a shorter time." : message;
}

/** Create a link and copy it. Throws ApiError. */
async function createLink(id, body) {
  const response = await request(jobUrl(id, "download-links"), { method: "POST", body: JSON.stringify(body) });
  const { url, expiresAt } = await response.json();
  const absolute = new URL(url, response.url).href;
  return { url: absolute, expiresAt, isCopied: await copyText(absolute) };
}
