/** How a job's state and progress look: a state is a word, a shape and a colour. */

import { html } from "./html.js";

/** The states in the order in which they are shown, by what they are called in the API. */
export const STATES = ["queued", "rendering", "completed", "failed", "canceled"];

const SHAPES = {
  queued: "M8 2.5a5.5 5.5 0 1 0 0 11a5.5 5.5 0 1 0 0-11",
  rendering: "M5 3l8 5l-8 5z",
  completed: "M3 8.5l3.5 3.5l6.5-8",
  failed: "M3.5 3.5l9 9M12.5 3.5l-9 9",
  canceled: "M8 2.5a5.5 5.5 0 1 0 0 11a5.5 5.5 0 1 0 0-11M4.2 4.2l7.6 7.6",
  stalled: "M8 2l6.5 11.5h-13zM8 6.5v3M8 11.5v.1",
};

/** An icon of one path of 16 by 16 units. It is decoration: the text beside it says what it means. */
export function Icon({ path }) {
  return html`<svg class="icon" viewBox="0 0 16 16" aria-hidden="true"><path d=${path} /></svg>`;
}

/** The shape and word of a state. */
export function StateLabel({ status }) {
  return html`<span class="state ${status}"><${Icon} path=${SHAPES[status]} />${capitalize(status)}</span>`;
}

/** A badge for an unfinished job that has not been written for a while. */
export function StalledBadge() {
  return html`<span class="badge stalled" title="Unfinished, but its record has not been written for a while">
    <${Icon} path=${SHAPES.stalled} />Stalled
  </span>`;
}

/** A bar in the colour of the state. Its percentage has to be beside it as text, for those who do not see it. */
export function ProgressBar({ job }) {
  return html`<span class="bar ${job.status}" style=${{ "--done": (job.progress ?? 0) / 100 }} aria-hidden="true" />`;
}

/** Return a state's name as a word at the start of a text. */
export function capitalize(word) {
  return word[0].toUpperCase() + word.slice(1);
}
