/** What the job page says about a job, from its document in the API. Pure functions. */

import { jobUrl } from "../api.js";
import { formatAge, formatDuration, formatSize } from "../format.js";
import { endText, framesText } from "../jobs/job_row.js";

const SHOWN = {
  video: /^video\/(mp4|webm|quicktime|ogg)$/,
  audio: /^audio\/(mpeg|ogg|flac|mp4|x-wav)$/,
  image: /^image\/(png|jpeg|gif|webp|avif|bmp)$/,
};
const MAX_IMAGE_SIZE = 32_000_000; // bytes

/** Return how a browser shows a file: "video", "audio" or "image"; undefined if it does not, or if an image is too large. */
export function shownAs({ contentType, size }) {
  const kind = Object.keys(SHOWN).find((name) => SHOWN[name].test(contentType));
  return kind === "image" && size > MAX_IMAGE_SIZE ? undefined : kind;
}

/** Return the URL of a file. Without `path`, the output is the file; `downloadUrl` has its version. */
export function fileUrl(id, outputName, { downloadUrl, path }) {
  const parts = path === undefined ? [] : path.split("/").map(encodeURIComponent);
  return `${jobUrl(id, "files", outputName, ...parts)}?${downloadUrl.split("?")[1]}`;
}

/** Return what to show of outputs: `{kind, output, poster}`; undefined if a browser can show none of them. */
export function choosePreview(outputs) {
  const find = (kind, ...roles) => roles
    .map((role) => outputs.find((output) => output.role === role && shownAs(output) === kind))
    .find(Boolean);
  for (const kind of ["video", "audio", "image"]) {
    const output = find(kind, "preview", "main", "thumbnail");
    if (output) return { kind, output, poster: find("image", "thumbnail", "preview") };
  }
  return undefined;
}

/**
 * Return what the list of outputs has in its rows: `title`, `output` (undefined for all files), `downloads` (labels and
 * URLs), `link` (the body of a request for a link; undefined if the API has none) and `filter` of the list of files.
 */
export function outputRows(job) {
  const rows = job.outputs.map((output) => (output.kind === "file" ? fileRow(job, output) : archiveRow(job, output)));
  const all = { title: "All files", downloads: archives(job.id, ""), link: { archive: "zip" }, filter: "" };
  if (rows.length > 1) return [...rows, all];
  return rows[0].output.kind === "file" ? rows : [{ ...rows[0], link: all.link }];
}

function fileRow(job, output) {
  const isMain = output.role === "main";
  const url = isMain ? `${jobUrl(job.id, "download")}?${output.downloadUrl.split("?")[1]}` : fileUrl(job.id, output.name, output);
  return { title: title(job, output), output, downloads: [["Download", url]], link: isMain ? {} : { file: output.name } };
}

function archiveRow(job, output) {
  const filter = `output=${output.name}`;
  const link = output.role === "main" ? {} : undefined;
  return { title: title(job, output), output, downloads: archives(job.id, filter), link, filter };
}

function archives(id, filter) {
  return ["tar", "zip"].map((format) => [`Download ${format}`, jobUrl(id, `archive.${format}`) + (filter && `?${filter}`)]);
}

/** The file name of the main output. Of the others, the API has only the name. */
function title({ outputPath }, { role, name }) {
  return (role === "main" && outputPath?.match(/([^/]+)\/*$/)?.[1]) || name;
}

/** Return a page of the list of files in words: "12 frames, 3.4 MB, 2 missing". */
export function filesText({ totalFiles, totalSize, missingFrames = {}, leftOut }, noun) {
  const missing = Object.values(missingFrames).reduce((sum, count) => sum + count, 0);
  const count = `${totalFiles} ${noun}${totalFiles === 1 ? "" : "s"}`;
  return [count, formatSize(totalSize), missing && `${missing} missing`, leftOut && `${leftOut} that cannot be served`]
    .filter(Boolean).join(", ");
}

/** Return a phrase about a job's state at `now`, in milliseconds since the epoch: "3 h ago, took 2 min". */
export function summary(job, now) {
  const end = endText(job, now);
  if (job.done) return [formatAge(job.completedAt ?? job.updatedAt, now), end].filter(Boolean).join(", ");
  const since = job.status === "queued" ? job.createdAt : (job.startedAt ?? job.updatedAt);
  return `for ${formatDuration((now - Date.parse(since)) / 1000)}${end && `, ends ${end}`}`;
}

/** Return the progress in words: "42 %, 105 / 250 frames". */
export function progressText(job) {
  const frames = framesText(job);
  return `${Math.floor(job.progress)} %${frames === "" ? "" : `, ${frames} frames`}`;
}

/** Parse a job's document. Integers that JavaScript cannot represent become text, with all their digits. */
export function parseJob(text) {
  const keepDigits = (value, source) => (/^-?\d{16,}$/.test(source) && !Number.isSafeInteger(value) ? source : value);
  return JSON.parse(text, (_name, value, context) => keepDigits(value, context?.source));
}

/** Return a value of the metadata as text. */
export function metadataText(value) {
  return typeof value === "string" ? value : JSON.stringify(value);
}
