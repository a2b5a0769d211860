/** How all pages show a job's state: a shape, a colour and a word, and a bar. */

import { html } from "./html.js";

const SHAPES = {
  queued: "M8 3a5 5 0 1 0 0 10A5 5 0 0 0 8 3Zm0 1.6a3.4 3.4 0 1 1 0 6.8 3.4 3.4 0 0 1 0-6.8Z",
  rendering: "M5 3v10l8-5Z",
  completed: "m3 8.5 3.2 3.2L13 5l-1.3-1.3-5.5 5.5-1.9-2Z",
  failed: "M4.3 3 3 4.3 6.7 8 3 11.7 4.3 13 8 9.3l3.7 3.7 1.3-1.3L9.3 8 13 4.3 11.7 3 8 6.7Z",
  canceled: "M3 7h10v2H3Z",
};

/** The state of a job, `{status, stalled}`, as shape and word. */
export function StatusLabel({ job }) {
  return html`<span class="status ${job.status}">
    <svg viewBox="0 0 16 16" aria-hidden="true"><path d=${SHAPES[job.status]} /></svg>${job.status}</span
  >${job.stalled && html`<span class="badge stalled">stalled</span>`}`;
}

/** The progress of a job as a bar: `{status, progress}`. */
export function ProgressBar({ job }) {
  return html`<span class="bar ${job.status}" role="progressbar" aria-label="Progress"
    aria-valuenow=${Math.floor(job.progress)} aria-valuemin="0" aria-valuemax="100"
  ><span style=${{ width: `${job.progress}%` }}></span></span>`;
}

/** The progress of a job in words: "42 %", with frames "42 %, 105 of 250 frames". */
export function progressText({ progress, framesDone, framesTotal }) {
  const frames = [framesDone, framesTotal].filter((count) => count !== undefined);
  return `${Math.floor(progress)} %` + (frames.length ? `, ${frames.join(" of ")} frames` : "");
}
