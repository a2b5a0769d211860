/** Keys of a page, and the dialog that lists them. */

import { html, useEffect, useRef, useState } from "./html.js";

/**
 * Call functions when keys are pressed outside of fields and dialogs. `bindings` is `[[keys, description, run], ...]`, with
 * values of KeyboardEvent.key as `keys`; `run` gets the event, and returns false to leave it to the browser.
 * Returns the dialog that lists the keys, which `?` opens: it has to be rendered somewhere in the page.
 */
export function useKeys(bindings) {
  const [isListed, setListed] = useState(false);
  const latest = useRef();
  latest.current = [...bindings, [["?"], "List the keys", () => setListed(true)]];
  useEffect(() => {
    const onKeyDown = (event) => press(latest.current, event);
    addEventListener("keydown", onKeyDown);
    return () => removeEventListener("keydown", onKeyDown);
  }, []);
  return isListed && html`<${KeysDialog} bindings=${latest.current} onClose=${() => setListed(false)} />`;
}

function press(bindings, event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea, dialog")) return;
  const binding = bindings.find(([keys]) => keys.includes(event.key));
  if (binding && binding[2](event) !== false) event.preventDefault();
}

function KeysDialog({ bindings, onClose }) {
  const dialog = useRef();
  useEffect(() => dialog.current.showModal(), []);
  return html`<dialog ref=${dialog} aria-label="Keys" onClose=${onClose}>
    <h2>Keys</h2>
    <dl class="facts">
      ${bindings.map(
        ([keys, description]) => html`<dt>${keys.map((key) => html`<kbd>${{ ArrowDown: "↓", ArrowUp: "↑" }[key] ?? key}</kbd> `)}</dt>
          <dd>${description}</dd>`,
      )}
    </dl>
    <form method="dialog"><button>Close</button></form>
  </dialog>`;
}
