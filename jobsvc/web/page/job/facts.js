/** The times, paths and metadata of a job. */

import { formatAge, formatTime } from "../format.js";
import { html, useState } from "../html.js";
import { metadataText } from "./job_model.js";
import { LongText } from "./long_text.js";

const MAX_ROWS = 100;

/** When a job was created, started and so on, `now` in milliseconds since the epoch. */
export function Times({ job, now }) {
  const times = [
    ["Created", job.createdAt],
    ["Started", job.startedAt],
    ["Last update", job.updatedAt],
    ["Estimated end", job.done ? undefined : job.estimatedCompletionAt],
    ["Ended", job.completedAt],
  ];
  return html`<${Facts} title="Times" rows=${times.map(([name, time]) => [name, time && Time({ time, now })])} />`;
}

function Time({ time, now }) {
  return html`<time datetime=${time}>${formatTime(time)}</time>${" "}
    ${Date.parse(time) <= now && html`<span class="muted">${formatAge(time, now)}</span>`}`;
}

/** What else the record has. */
export function Details({ job }) {
  const text = (value) => value !== undefined && value !== null && html`<${LongText} text=${String(value)} />`;
  return html`<${Facts} title="Details" rows=${[
    ["Owner", text(job.owner)],
    ["Project", text(job.projectPath)],
    ["Output", text(job.outputPath)],
    ["Attempt", text(job.attempt)],
    ["State in the record", text(job.sourceStatus)],
  ]} />`;
}

/** The farm's own data, each member as text. */
export function Metadata({ metadata = {} }) {
  const [isWhole, setIsWhole] = useState(false);
  const members = Object.entries(metadata);
  const shown = isWhole ? members : members.slice(0, MAX_ROWS);
  const rows = shown.map(([name, value]) => [
    html`<${LongText} text=${name} limit=${200} />`,
    html`<${LongText} text=${metadataText(value)} />`,
  ]);
  return html`<${Facts} title="Metadata" rows=${rows}>
    ${shown.length < members.length && html`<button onClick=${() => setIsWhole(true)}>Show all ${members.length}</button>`}
  <//>`;
}

/** A list of names and values; those without a value are left out, and so is an empty list. */
function Facts({ title, rows, children }) {
  const present = rows.filter(([, value]) => value);
  if (!present.length) return null;
  return html`<section class="card">
    <h2>${title}</h2>
    <dl class="facts">${present.map(([name, value]) => html`<dt>${name}</dt><dd>${value}</dd>`)}</dl>
    ${children}
  </section>`;
}
