/** The outputs of a completed job: what there is, how large it is, how to get it, and a preview. */

import { getJson, jobUrl } from "../api.js";
import { CopyButton, copyText } from "../copy_button.js";
import { formatSize, formatTime } from "../format.js";
import { html, useEffect, useRef, useState } from "../html.js";

const SHOWN_BY_BROWSERS = /^(video|image)\/(mp4|webm|quicktime|ogg|png|jpeg|gif|webp|avif|bmp)$/;
const DIGEST_INTERVAL_MS = 1000;

export function Outputs({ job }) {
  if (!job.outputs) return html`<p class="notice warning">The job is completed, but none of its outputs exists.</p>`;
  return html`<section class="card">
      <h2>Outputs</h2>
      ${job.outputs.map((output) =>
        html`<${output.kind === "file" ? File : Files} key=${output.downloadUrl} job=${job} output=${output} />`)}
      ${job.outputs.length > 1 && html`<${Files} job=${job} output=${{}} />`}
    </section>
    <${Preview} video=${previewUrl(job, "video")} image=${previewUrl(job, "image")} />`;
}

/** One file, with its SHA-256, which the service computes on request. */
function File({ job, output }) {
  const { name, role, contentType, size } = output;
  const [{ sha256 = role === "main" ? job.outputSha256 : undefined, message }, setDigest] = useState({});
  const compute = async () => {
    try {
      const headers = { "Want-Repr-Digest": "sha-256=1" };
      const { files: [file] } = await getJson(jobUrl(job.id, `files?output=${name}`), { headers });
      setDigest({ sha256: file.sha256, message: "Computing SHA-256…" });
      if (!file.sha256) setTimeout(compute, DIGEST_INTERVAL_MS);
    } catch (error) {
      setDigest(error);
    }
  };
  const digest = sha256
    ? html`<div>SHA-256 <code>${sha256}</code> <${CopyButton} text=${sha256}>Copy<//></div>`
    : html`<button class="quiet" onClick=${compute}>Show SHA-256</button>`;
  return html`<${Row} job=${job} output=${output} about="${contentType}, ${formatSize(size)}"
    downloads=${{ Download: fileUrl(job.id, output) }} link=${{ file: name, inline: SHOWN_BY_BROWSERS.test(contentType) }}>
    ${!sha256 && message ? html`<span role="status">${message}</span>` : digest}
  <//>`;
}

/** The files of a sequence, of a directory, or of all outputs if `output` is empty. */
function Files({ job, output }) {
  const { id, outputs } = job;
  const [about, setAbout] = useState("");
  const query = output.name ? `?output=${output.name}` : "";
  useEffect(() => {
    getJson(jobUrl(id, `files${query}`)).then(filesText).catch(({ message }) => message).then(setAbout);
  }, [JSON.stringify(outputs)]);
  const link = !query || outputs.length === 1 ? { archive: "zip" } : output.role === "main" && {};
  return html`<${Row} job=${job} output=${output} about=${about} link=${link}
    downloads=${{ "Download tar": jobUrl(id, `archive.tar${query}`), "Download zip": jobUrl(id, `archive.zip${query}`) }} />`;
}

function filesText({ totalFiles, totalSize, missingFrames = {} }) {
  const missing = Object.values(missingFrames).reduce((sum, count) => sum + count, 0);
  return `${totalFiles} files, ${formatSize(totalSize)}${missing ? `, ${missing} frames missing` : ""}`;
}

function Row({ job: { id, outputPath }, output: { name, role }, about, downloads, link, children }) {
  const isMain = role === "main";
  const title = (isMain && outputPath?.split("/").findLast(Boolean)) || name || "All files";
  const download = ([text, url], index) =>
    html`<a class="button ${isMain && !index ? "primary" : ""}" href=${url} download aria-label="${text}: ${title}">${text}</a>`;
  return html`<div class="output">
    <div>
      <strong><bdi>${title}</bdi></strong> <span class="muted">${role}</span>
      <div class="muted">${about}</div>
    </div>
    <div class="toolbar">
      ${Object.entries(downloads).map(download)}
      ${link && html`<${LinkButton} id=${id} title=${title} body=${link} />`}
      ${children}
    </div>
  </div>`;
}

/** Return the URL of a file, with its version. */
function fileUrl(id, { name, downloadUrl }) {
  return jobUrl(id, "files", downloadUrl.replace(/.*\?/, `${name}?`));
}

/** Creates a link for someone without a token, in a dialog. `body` is that of the request, without the lifetime. */
function LinkButton({ id, title, body }) {
  const dialog = useRef();
  const [{ url, message }, setResult] = useState({});
  const create = async (event) => {
    event.preventDefault();
    const expiresIn = Number(event.target.elements.seconds.value);
    const path = jobUrl(id, "download-links");
    try {
      const link = await getJson(path, { method: "POST", body: JSON.stringify({ ...body, expiresIn }) });
      const url = new URL(link.url, new URL(path, location)).href;
      setResult({ url, message: `${(await copyText(url)) ? "Copied. " : ""}It works until ${formatTime(link.expiresAt)}.` });
    } catch ({ code, message }) {
      setResult({ message: code === "bad-request" ? "This service does not allow links for so long." : message });
    }
  };
  return html`<button onClick=${() => dialog.current.showModal()}>Copy link…</button>
    <dialog ref=${dialog} onClose=${() => setResult({})} aria-label="Link">
      <h2>Link to <bdi>${title}</bdi></h2>
      <p>Anyone with the link can open it, without signing in, until it expires.</p>
      <form class="toolbar" onSubmit=${create}>
        <label>Expires after <select name="seconds">
          <option value="3600">1 hour</option>
          <option value="28800">8 hours</option>
          <option value="86400">1 day</option>
        </select></label>
        <button class="primary">Create and copy</button>
      </form>
      ${url && html`<p class="toolbar"><input readonly value=${url} aria-label="Link" /><${CopyButton} text=${url}>Copy<//></p>`}
      <p role="status">${message}</p>
      <form method="dialog"><button>Close</button></form>
    </dialog>`;
}

/** Return the URL of the "video" or "image" to look at, if there is one. */
export function previewUrl({ id, outputs }, type) {
  const isShown = ({ contentType }) => SHOWN_BY_BROWSERS.exec(contentType)?.[1] === type;
  const sorted = ["preview", "main", "thumbnail"].flatMap((role) => outputs.filter((output) => output.role === role));
  return sorted.filter(isShown).map((output) => fileUrl(id, output))[0];
}

function Preview({ video, image }) {
  const [broken, setBroken] = useState();
  const src = video ?? image;
  const properties = { src, onError: () => setBroken(src) };
  if (src && src === broken) return html`<p class="notice warning">This browser cannot show the preview. Download the file.</p>`;
  if (video) return html`<video ...${properties} poster=${image} controls preload="metadata" aria-label="Preview" />`;
  return image && html`<img ...${properties} alt="Preview" />`;
}
