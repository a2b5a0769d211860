/** A button that copies a text and says so. */

import { copyText } from "../clipboard.js";
import { html, useEffect, useState } from "../html.js";

const SHOWN_MS = 2000;

/** `children` is the button's label. */
export function CopyButton({ text, children }) {
  const [result, setResult] = useState("");
  useEffect(() => {
    const timer = setTimeout(() => setResult(""), SHOWN_MS);
    return () => clearTimeout(timer);
  }, [result]);
  const copy = async () => setResult((await copyText(text)) ? "Copied" : "Select and copy it yourself");
  return html`<button type="button" onClick=${copy}>${children}</button>
    <span class="muted" role="status">${result}</span>`;
}
