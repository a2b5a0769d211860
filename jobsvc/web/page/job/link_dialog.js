/** The dialog that creates a link for someone without a token. */

import { jobUrl, request } from "../api.js";
import { copyText } from "../clipboard.js";
import { formatTime } from "../format.js";
import { html, useEffect, useRef, useState } from "../html.js";
import { CopyButton } from "./copy_button.js";

const LIFETIMES = [["1 hour", 3600], ["8 hours", 28_800], ["1 day", 86_400]];

/** The button "Copy link" and its dialog. `target`: `{title, body, canPlay, isArchive}`, `body` as in the API. */
export function LinkButton({ id, target }) {
  const [isOpen, setIsOpen] = useState(false);
  return html`<button onClick=${() => setIsOpen(true)} aria-haspopup="dialog">Copy link…</button>
    ${isOpen && html`<${LinkDialog} id=${id} target=${target} onClose=${() => setIsOpen(false)} />`}`;
}

function LinkDialog({ id, target, onClose }) {
  const dialog = useRef();
  const [link, setLink] = useState(null);
  const [message, setMessage] = useState("");
  useEffect(() => dialog.current.showModal(), []);
  const create = async (event) => {
    event.preventDefault();
    try {
      setLink(await createLink(id, bodyOf(event.currentTarget, target)));
    } catch (error) {
      setMessage(error.message);
    }
  };
  return html`<dialog ref=${dialog} class="link-dialog" onClose=${onClose} aria-labelledby="link-title">
    <h2 id="link-title">Link to <bdi>${target.title}</bdi></h2>
    <p>Anyone who has the link can download this until it expires, without a token.</p>
    ${link ? html`<${Link} link=${link} />` : html`<${LinkForm} target=${target} onSubmit=${create} />`}
    <p class="failed" role="alert">${message}</p>
    <form method="dialog"><button>${link ? "Done" : "Cancel"}</button></form>
  </dialog>`;
}

function LinkForm({ target, onSubmit }) {
  return html`<form class="toolbar" onSubmit=${onSubmit}>
    ${target.isArchive && html`<label>Format <select name="archive"><option>zip</option><option>tar</option></select></label>`}
    <label>Expires after <select name="expiresIn">
      ${LIFETIMES.map(([text, seconds]) => html`<option value=${seconds}>${text}</option>`)}
    </select></label>
    ${target.canPlay && html`<label><input type="checkbox" name="inline" checked /> Opens in the browser</label>`}
    <button class="primary">Create and copy</button>
  </form>`;
}

function Link({ link }) {
  return html`<p class="toolbar">
      <input class="mono" readonly value=${link.url} aria-label="Link" onFocus=${(event) => event.currentTarget.select()} />
      <${CopyButton} text=${link.url}>Copy<//>
    </p>
    <p role="status">${link.isCopied && "Copied. "}It works until ${formatTime(link.expiresAt)}.</p>`;
}

/** Create a link and copy it. Throws ApiError. */
async function createLink(id, body) {
  const response = await request(jobUrl(id, "download-links"), { method: "POST", body: JSON.stringify(body) });
  const { url, expiresAt } = await response.json();
  const absolute = new URL(url, response.url).href;
  return { url: absolute, expiresAt, isCopied: await copyText(absolute) };
}

function bodyOf(form, { body }) {
  const values = Object.fromEntries(new FormData(form));
  return { ...body, ...values, expiresIn: Number(values.expiresIn), inline: "inline" in values || undefined };
}
