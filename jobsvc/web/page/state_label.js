/** How a job's state and progress look: a state is a word, a shape and a colour. */

import { html } from "./html.js";

const SHAPES = {
  queued: "M8 2.5a5.5 5.5 0 1 0 0 11a5.5 5.5 0 1 0 0-11",
  rendering: "M5 3l8 5l-8 5z",
  completed: "M3 8.5l3.5 3.5l6.5-8",
  failed: "M3.5 3.5l9 9M12.5 3.5l-9 9",
  canceled: "M8 2.5a5.5 5.5 0 1 0 0 11a5.5 5.5 0 1 0 0-11M4.2 4.2l7.6 7.6",
};

/** The API's names of the states, in the order in which they are shown. */
export const STATES = Object.keys(SHAPES);

/** A path of 16 by 16 units. It is decoration: the text beside it says what it means. */
export function Icon({ path }) {
  return html`<svg class="icon" viewBox="0 0 16 16" aria-hidden="true"><path d=${path} /></svg>`;
}

export function StateLabel({ status }) {
  const word = status[0].toUpperCase() + status.slice(1);
  return html`<span class="state ${status}"><${Icon} path=${SHAPES[status]} />${word}</span>`;
}

export function StalledBadge() {
  return html`<span class="badge stalled" title="Unfinished, but its record has not been written for a while">
    <${Icon} path="M8 2l6.5 11.5h-13zM8 6.5v3M8 11.5v.1" />Stalled
  </span>`;
}

/** A bar. Its percentage has to be beside it as text, for those who do not see it. */
export function ProgressBar({ job: { status, progress } }) {
  return html`<span class="bar ${status}" style=${{ "--done": `${progress ?? 0}%` }} aria-hidden="true" />`;
}
