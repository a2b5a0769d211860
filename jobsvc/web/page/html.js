/** Preact with htm: `html` is a template tag that creates virtual nodes. Text is only ever set as text. */

import { h } from "./vendor/preact.mjs";
import htm from "./vendor/htm.mjs";

export { render } from "./vendor/preact.mjs";
export * from "./vendor/hooks.mjs";
export const html = htm.bind(h);
