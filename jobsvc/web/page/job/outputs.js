/** The outputs of a completed job: a preview, what there is, how large it is, and how to get it. */

import { getJson, jobUrl, request } from "../api.js";
import { CopyButton } from "../copy_button.js";
import { formatSize } from "../format.js";
import { html, useEffect, useState } from "../html.js";
import { choosePreview, filesText, fileUrl, outputRows, shownAs } from "./job_model.js";
import { LinkButton } from "./link_dialog.js";

const MAX_COUNTED = 8; // rows whose files are counted
const MAX_PAUSE_MS = 10_000;

export function Outputs({ job }) {
  if (!job.outputs) return html`<p class="notice warning">The job is completed, but none of its outputs exists.</p>`;
  const rows = outputRows(job);
  const { kind, output, poster } = choosePreview(job.outputs) ?? {};
  const urlOf = (shown) => shown && fileUrl(job.id, shown.name, shown);
  return html`<section class="card">
      <h2>Outputs</h2>
      <ul class="outputs">${rows.map((row) => html`<${Output} key=${row.filter ?? row.title}
        job=${job} row=${row} isCounted=${row.filter === "" || rows.length <= MAX_COUNTED} />`)}</ul>
    </section>
    ${output && html`<${Preview} key=${output.downloadUrl} url=${urlOf(output)} kind=${kind} poster=${urlOf(poster)} />`}`;
}

function Output({ job, row: { title, output, downloads, link, filter }, isCounted }) {
  const isFile = output?.kind === "file";
  const isMain = output?.role === "main";
  const { text, frame } = useFiles(job, isCounted ? filter : undefined, output?.kind === "sequence" ? "frame" : "file");
  return html`<li>
    ${isMain && frame && html`<img src=${fileUrl(job.id, output.name, frame)} alt="First frame" />`}
    <div>
      <strong><bdi>${title}</bdi></strong> <span class="muted">${output?.role}</span>
      <div class="muted">${isFile ? `${output.contentType}, ${formatSize(output.size)}` : text}</div>
    </div>
    <div class="toolbar">
      ${downloads.map(([label, url], index) => html`<a download href=${url} aria-label=${`${label}: ${title}`}
        class="button ${isMain && !index ? "primary" : ""}">${label}</a>`)}
      ${link && html`<${LinkButton} id=${job.id} title=${title} body=${link} canShow=${isFile && shownAs(output)} />`}
      ${isFile && html`<${Digest} key=${output.downloadUrl} id=${job.id} name=${output.name} known=${isMain && job.outputSha256} />`}
    </div>
  </li>`;
}

/** Return the number and size of files as `text`, and the first one as `frame` if it is an image. Without `filter`: nothing. */
function useFiles({ id, outputs }, filter, noun) {
  const [files, setFiles] = useState({ text: "" });
  useEffect(() => {
    if (filter === undefined) return;
    getJson(`${jobUrl(id, "files")}?limit=1&${filter}`).then(
      (page) => setFiles({ text: filesText(page, noun), frame: page.files.find((file) => shownAs(file) === "image") }),
      (error) => setFiles({ text: error.message }),
    );
  }, [JSON.stringify(outputs)]);
  return files;
}

/** The SHA-256 of an output, which the service computes on request; `known` if the job's document has it. */
function Digest({ id, name, known }) {
  const [result, setResult] = useState({});
  const digest = known || result.digest;
  const compute = () => {
    setResult({ text: "Computing SHA-256…" });
    waitForDigest(id, name).then(setResult, (error) => setResult({ text: error.message }));
  };
  if (digest) return html`<p class="digest">SHA-256 <code>${digest}</code> <${CopyButton} text=${digest}>Copy<//></p>`;
  if (result.text) return html`<span role="status">${result.text}</span>`;
  return html`<button class="quiet" onClick=${compute}>SHA-256</button>`;
}

/** Request the digest of an output until it is known. Throws ApiError. */
async function waitForDigest(id, name) {
  for (let pause = 300; ; pause = Math.min(pause * 1.5, MAX_PAUSE_MS)) {
    const { files } = await getJson(`${jobUrl(id, "files")}?limit=1&output=${name}`, { headers: { "Want-Repr-Digest": "sha-256=1" } });
    if (files[0].sha256) return { digest: files[0].sha256 };
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}

function Preview({ url, kind, poster }) {
  const [failure, setFailure] = useState("");
  const properties = { src: url, onError: async () => setFailure(await failureOf(url)) };
  if (failure) return html`<p class="notice warning" role="alert">No preview: ${failure}</p>`;
  if (kind === "image") return html`<img class="preview" alt="Preview" ...${properties} />`;
  return html`<${kind} class="preview" aria-label="Preview" controls preload="metadata" playsinline poster=${poster} ...${properties} />`;
}

/** Return why a browser could not show a file: elements do not tell what the service said. */
function failureOf(url) {
  return request(url, { headers: { Range: "bytes=0-0" } }).then(
    () => "this browser cannot show the file. Download it and open it in another program.",
    (error) => error.message,
  );
}
