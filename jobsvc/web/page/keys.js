/** Keys of a page, and the dialog that lists them. */

import { html, useListener, useState } from "./html.js";

const NAMES = { ArrowDown: "↓", ArrowUp: "↑" };
const showModal = (dialog) => dialog?.showModal();

/**
 * Handle keys that are pressed outside of fields and dialogs: `bindings` is `[[keys, description, run], ...]`, and `run`
 * returns false to leave the key to the browser. Returns the dialog that lists the keys, which the page has to render.
 */
export function useKeys(bindings) {
  const [isListed, setListed] = useState(false);
  const all = [...bindings, [["?"], "Show this list", () => setListed(true)]];
  useListener("keydown", (event) => {
    const { key, ctrlKey, metaKey, altKey, target } = event;
    if (ctrlKey || metaKey || altKey || target.closest("input, select, textarea, dialog[open]")) return;
    const [, , run] = all.find(([keys]) => keys.includes(key)) ?? [];
    if (run && run(event) !== false) event.preventDefault();
  });
  return isListed && html`<dialog ref=${showModal} aria-label="Keyboard shortcuts" onClose=${() => setListed(false)}>
    <h2>Keyboard shortcuts</h2>
    <dl class="facts">
      ${all.map(
        ([keys, description]) => html`<dt>${keys.map((key) => html`<kbd>${NAMES[key] ?? key}</kbd> `)}</dt>
          <dd>${description}</dd>`,
      )}
    </dl>
    <form method="dialog"><button>Close</button></form>
  </dialog>`;
}
