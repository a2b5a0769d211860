/** Text of the farm, of any length: long ones are cut, so that a megabyte does not slow the page down. */

import { formatSize } from "../format.js";
import { html, useState } from "../html.js";

/** The first `limit` characters of a text, and a button for all of it. */
export function LongText({ text, limit = 2000 }) {
  const [isWhole, setIsWhole] = useState(false);
  if (isWhole || text.length <= limit) return html`<bdi class="wrap">${text}</bdi>`;
  return html`<bdi class="wrap">${text.slice(0, limit)}…</bdi>${" "}
    <button class="small" onClick=${() => setIsWhole(true)}>Show all (${formatSize(text.length)})</button>`;
}
