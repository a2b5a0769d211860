/** The times, paths and metadata of a job. */

import { formatSize, formatTime } from "../format.js";
import { html, useState } from "../html.js";
import { metadataText } from "./job_model.js";

const MAX_ROWS = 100;

/** Text of the farm: the first `limit` characters, and a button for all of it, as a megabyte slows a page down. */
export function LongText({ text, limit = 2000 }) {
  const [isWhole, setIsWhole] = useState(false);
  if (isWhole || text.length <= limit) return html`<bdi class="wrap">${text}</bdi>`;
  return html`<bdi class="wrap">${text.slice(0, limit)}… </bdi>
    <button class="small" onClick=${() => setIsWhole(true)}>Show all ${formatSize(text.length)}</button>`;
}

/** The times of a job, and what else the record has. */
export function Details({ job }) {
  const times = Object.entries({
    Created: job.createdAt,
    Started: job.startedAt,
    "Estimated end": job.done ? undefined : job.estimatedCompletionAt,
    Ended: job.completedAt,
    Updated: job.updatedAt,
  });
  const texts = Object.entries({
    Attempt: job.attempt,
    "Farm's word": job.sourceStatus,
    Project: job.projectPath,
    Output: job.outputPath,
    Owner: job.owner,
  });
  return html`<${Facts} title="Details" rows=${[
    ...times.map(([name, time]) => [name, time && html`<time datetime=${time}>${formatTime(time)}</time>`]),
    ...texts.map(([name, text]) => [name, text != null && html`<${LongText} text=${String(text)} />`]),
  ]} />`;
}

/** The farm's own data, each member as text. */
export function Metadata({ metadata = {} }) {
  return html`<${Facts} title="Metadata" rows=${Object.entries(metadata).map(([name, value]) => [
    html`<${LongText} text=${name} limit=${100} />`,
    html`<${LongText} text=${metadataText(value)} />`,
  ])} />`;
}

/** Names and values. Those without a value are left out, and so is the list if it is empty. */
function Facts({ title, rows }) {
  const [limit, setLimit] = useState(MAX_ROWS);
  const present = rows.filter(([, value]) => value);
  if (!present.length) return null;
  return html`<section class="card">
    <h2>${title}</h2>
    <dl class="facts">${present.slice(0, limit).map(([name, value]) => html`<dt>${name}</dt><dd>${value}</dd>`)}</dl>
    ${present.length > limit && html`<button onClick=${() => setLimit(Infinity)}>Show all ${present.length}</button>`}
  </section>`;
}
