/** The outputs of a completed job: what there is, how large it is, and how to get it. */

import { getJson, jobUrl } from "../api.js";
import { formatSize } from "../format.js";
import { html, useEffect, useState } from "../html.js";
import { Digest } from "./digest.js";
import { FileList } from "./file_list.js";
import { archiveUrl, downloadUrl, filesText, outputTitle, shownAs } from "./job_model.js";
import { LinkButton } from "./link_dialog.js";

const MAX_COUNTED = 8; // outputs of which the page asks for the number of files

/** `canDownload`: whether the token has the scope for it. */
export function Outputs({ job, canDownload }) {
  const outputs = job.outputs ?? [];
  if (!outputs.length) return html`<p class="notice warning">The job is completed, but none of its outputs exists.</p>`;
  const hasSeveral = outputs.length > 1 || outputs[0].kind !== "file";
  return html`<section class="card">
    <h2>Outputs</h2>
    ${!canDownload && html`<p class="muted">Your token lacks the scope outputs:read, which downloads need.</p>`}
    <ul class="outputs">
      ${outputs.map((output, index) => html`<${Output}
        key=${output.name} job=${job} output=${output} canDownload=${canDownload} isCounted=${index < MAX_COUNTED} />`)}
      ${hasSeveral && canDownload && html`<${AllFiles} job=${job} />`}
    </ul>
  </section>`;
}

function Output({ job, output, canDownload, isCounted }) {
  const isFile = output.kind === "file";
  const files = useFiles(job, isFile || !canDownload || !isCounted ? null : output);
  return html`<li>
    <div class="output">
      <strong><bdi>${outputTitle(job, output)}</bdi></strong> <span class="muted">${output.role}</span>
      <div class="muted">${isFile ? `${output.contentType}, ${formatSize(output.size)}` : files.text}</div>
    </div>
    ${canDownload && html`<${OutputActions} job=${job} output=${output} />`}
    ${canDownload && !isFile && html`<${FileList} id=${job.id} output=${output} />`}
  </li>`;
}

function OutputActions({ job, output }) {
  const isFile = output.kind === "file";
  const isMain = output.role === "main";
  const target = { title: outputTitle(job, output), body: isMain ? {} : { file: output.name }, canPlay: shownAs(output.contentType) };
  return html`<div class="toolbar">
    ${isFile && html`<${Digest} id=${job.id} output=${output} known=${isMain ? job.outputSha256 : undefined} />`}
    ${(isFile || isMain) && html`<${LinkButton} id=${job.id} target=${target} />`}
    <${Download} url=${downloadUrl(job.id, output)} isPrimary=${isMain}>Download${isFile ? "" : " tar"}<//>
  </div>`;
}

function AllFiles({ job }) {
  const files = useFiles(job, {});
  return html`<li>
    <div class="output"><strong>All files</strong><div class="muted">${files.text}</div></div>
    <div class="toolbar">
      <${LinkButton} id=${job.id} target=${{ title: "all files", isArchive: true }} />
      <${Download} url=${archiveUrl(job.id, "tar")}>Download tar<//>
      <${Download} url=${archiveUrl(job.id, "zip")}>Download zip<//>
    </div>
  </li>`;
}

function Download({ url, isPrimary, children }) {
  return html`<a class=${isPrimary ? "button primary" : "button"} href=${url} download>${children}</a>`;
}

/** Return the number and size of an output's files as `text`; of all outputs for `{}`, of none for null. */
function useFiles(job, output) {
  const [text, setText] = useState("");
  const version = output && JSON.stringify(job.outputs);
  useEffect(() => {
    if (output === null) return;
    const query = output.name ? `?limit=1&output=${output.name}` : "?limit=1";
    getJson(jobUrl(job.id, "files") + query).then(
      (page) => setText(filesText(page, output.kind)),
      (error) => setText(error.message),
    );
  }, [version]);
  return { text };
}
