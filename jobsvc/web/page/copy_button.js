/** Copies text. Browsers have navigator.clipboard on https and on this host only. */

import { html, useState } from "./html.js";

/** A button that copies `text`, or what it returns; `children` is its label. */
export function CopyButton({ text, children }) {
  const [result, setResult] = useState("");
  const copy = async () => {
    setResult((await copyText(typeof text === "function" ? text() : text)) ? "Copied" : "Not copied");
    setTimeout(() => setResult(""), 3000);
  };
  return html`<button type="button" onClick=${copy}>${result || children}</button>
    <span class="visually-hidden" role="status">${result}</span>`;
}

/** Copy text to the clipboard. Returns whether the browser did it. */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const focused = document.activeElement;
    const field = Object.assign(document.createElement("textarea"), { value: text });
    // In the dialog, if one is open: nothing outside it can have the focus.
    (document.querySelector("dialog[open]") ?? document.body).append(field);
    field.select();
    const isCopied = document.execCommand("copy");
    field.remove();
    focused.focus();
    return isCopied;
  }
}
