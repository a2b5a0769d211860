/** The outputs of a completed job: what there is, how large it is, how to get it, and a preview. */

import { getJson, jobUrl } from "../api.js";
import { CopyButton } from "../copy_button.js";
import { formatSize } from "../format.js";
import { html, useEffect, useState } from "../html.js";
import { choosePreview, filesText, fileUrl, outputRows } from "./job_model.js";
import { LinkButton } from "./link_dialog.js";

const DIGEST_INTERVAL_MS = 1000;

export function Outputs({ job }) {
  if (!job.outputs) return html`<p class="notice warning">The job is completed, but none of its outputs exists.</p>`;
  const { video, image } = choosePreview(job.outputs);
  const urlOf = (output) => output && fileUrl(job.id, output);
  return html`<section class="card">
      <h2>Outputs</h2>
      ${outputRows(job).map((row) => html`<${Output} key=${row.title} job=${job} ...${row} />`)}
    </section>
    <${Preview} key=${urlOf(video ?? image)} video=${urlOf(video)} image=${urlOf(image)} />`;
}

function Output({ job, output = {}, title, query, downloads, link }) {
  const files = useFiles(job, query);
  const isMain = output.role === "main";
  return html`<div class="output">
    <div>
      <strong><bdi>${title}</bdi></strong> <span class="muted">${output.role}</span>
      <div class="muted">${query === undefined ? `${output.contentType}, ${formatSize(output.size)}` : files}</div>
    </div>
    <div class="toolbar">
      ${downloads.map(([text, url], index) => {
        const classes = `button ${isMain && !index ? "primary" : ""}`;
        return html`<a class=${classes} href=${url} download aria-label=${`${text}: ${title}`}>${text}</a>`;
      })}
      ${link && html`<${LinkButton} id=${job.id} title=${title} body=${link} />`}
      ${query === undefined &&
      html`<${Digest} key=${output.downloadUrl} id=${job.id} name=${output.name}
        known=${isMain && job.outputSha256} />`}
    </div>
  </div>`;
}

/** Return the number and size of the files of outputs in words, or why they are not known. */
function useFiles({ id, outputs }, query) {
  const [text, setText] = useState("");
  useEffect(() => {
    if (query === undefined) return;
    getJson(jobUrl(id, "files") + query).then(filesText).catch((error) => error.message).then(setText);
  }, [JSON.stringify(outputs)]);
  return text;
}

/** The SHA-256 of a file, which the service computes on request; `known` if the job's document has it. */
function Digest({ id, name, known }) {
  const [{ sha256, text }, setResult] = useState({});
  const digest = known || sha256;
  const ask = async () => {
    const headers = { "Want-Repr-Digest": "sha-256=1" };
    const [file] = (await getJson(`${jobUrl(id, "files")}?output=${name}`, { headers })).files;
    setResult({ ...file, text: "Computing SHA-256…" });
    if (!file.sha256) setTimeout(start, DIGEST_INTERVAL_MS);
  };
  const start = () => ask().catch((error) => setResult({ text: error.message }));
  if (digest) return html`<div>SHA-256 <code>${digest}</code> <${CopyButton} text=${digest}>Copy<//></div>`;
  if (text) return html`<span role="status">${text}</span>`;
  return html`<button class="quiet" onClick=${start}>SHA-256</button>`;
}

function Preview({ video, image }) {
  const [isBroken, setIsBroken] = useState(false);
  const properties = { class: "preview", src: video ?? image, onError: () => setIsBroken(true) };
  if (isBroken) return html`<p class="notice warning">This browser cannot show the preview. Download the file.</p>`;
  if (video) return html`<video ...${properties} poster=${image} controls preload="metadata" aria-label="Preview" />`;
  return image && html`<img ...${properties} alt="Preview" />`;
}
