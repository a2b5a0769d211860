/** Preact with htm: `html` is a template tag that creates virtual nodes. Text is only ever set as text. */

import { useLayoutEffect } from "./vendor/hooks.mjs";
import { h } from "./vendor/preact.mjs";
import htm from "./vendor/htm.mjs";

export { render } from "./vendor/preact.mjs";
export * from "./vendor/hooks.mjs";
export const html = htm.bind(h);

/** Listen to an event of the window while the component is shown. */
export function useListener(name, listener) {
  useLayoutEffect(() => {
    addEventListener(name, listener);
    return () => removeEventListener(name, listener);
  });
}
