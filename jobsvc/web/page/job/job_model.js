/** What the job page says about a job, from its document in the API. Pure functions. */

import { formatAge, formatDuration, formatSize } from "../format.js";
import { jobUrl } from "../api.js";

const SHOWN = {
  video: /^video\/(mp4|webm|quicktime|ogg)$/,
  audio: /^audio\/(mpeg|ogg|flac|mp4|x-wav)$/,
  image: /^image\/(png|jpeg|gif|webp|avif|bmp)$/,
};
const MAX_IMAGE_SIZE = 32_000_000; // bytes; larger images are shown only if they are opened as files

/** Return how a browser shows a media type: "video", "audio" or "image"; undefined if it does not. */
export function shownAs(contentType) {
  return Object.keys(SHOWN).find((kind) => SHOWN[kind].test(contentType));
}

/** Return the URL of an output for downloads: of the file, or of the tar archive of its files. */
export function downloadUrl(id, output) {
  const query = output.downloadUrl.split("?")[1];
  if (output.role === "main") return jobUrl(id, "download") + (query ? `?${query}` : "");
  return output.kind === "file" ? fileUrl(id, output.name, output) : archiveUrl(id, "tar", output.name);
}

/** Return the URL of a file by the name of its output and, unless the output is the file, its path. */
export function fileUrl(id, outputName, { downloadUrl: url, path }) {
  const parts = path === undefined ? [] : path.split("/").map(encodeURIComponent);
  return `${jobUrl(id, "files", outputName, ...parts)}?${url.split("?")[1]}`;
}

/** Return the URL of the archive of one output or, without a name, of all outputs. `format`: "tar" or "zip". */
export function archiveUrl(id, format, outputName) {
  return jobUrl(id, `archive.${format}`) + (outputName ? `?output=${outputName}` : "");
}

/** Return the file name of the main output, and the name of any other: the API has no more of it. */
export function outputTitle(job, output) {
  const path = output.role === "main" && job.outputPath;
  return path ? path.replace(/\/+$/, "").split("/").pop() : output.name;
}

/** Return what to show of a job's outputs: `{kind, output, poster}`; undefined if a browser can show none. */
export function choosePreview(outputs) {
  const find = (kind, ...roles) => roles
    .map((role) => outputs.find((output) => output.role === role && isShownAs(output, kind)))
    .find((output) => output !== undefined);
  for (const kind of ["video", "audio"]) {
    const output = find(kind, "preview", "main");
    if (output) return { kind, output, poster: find("image", "thumbnail", "preview") };
  }
  const output = find("image", "preview", "main", "thumbnail");
  return output && { kind: "image", output };
}

function isShownAs({ kind, contentType, size }, shown) {
  return kind === "file" && shownAs(contentType) === shown && (shown !== "image" || size <= MAX_IMAGE_SIZE);
}

/** Return a sentence about a job's state at `now`, in milliseconds since the epoch. */
export function summary(job, now) {
  const took = job.startedAt && job.completedAt && formatDuration(secondsBetween(job.startedAt, job.completedAt));
  const ended = formatAge(job.completedAt ?? job.updatedAt, now);
  switch (job.status) {
    case "queued": return `Waiting for ${formatDuration((now - Date.parse(job.createdAt)) / 1000)}`;
    case "rendering": return [job.startedAt && `For ${elapsed(job, now)}`, remaining(job, now)].filter(Boolean).join(", ");
    case "completed": return `${ended}${took ? `, rendered in ${took}` : ""}`;
    default: return `${ended}${took ? ` after ${took}` : ""}`;
  }
}

function elapsed(job, now) {
  return formatDuration((now - Date.parse(job.startedAt)) / 1000);
}

function remaining({ estimatedCompletionAt }, now) {
  if (!estimatedCompletionAt) return "";
  const seconds = (Date.parse(estimatedCompletionAt) - now) / 1000;
  return seconds > 0 ? `about ${formatDuration(seconds)} left` : `${formatDuration(-seconds)} later than estimated`;
}

function secondsBetween(from, to) {
  return (Date.parse(to) - Date.parse(from)) / 1000;
}

/** Return the progress in words: "42 %", with frames "42 %, 105 of 250 frames". */
export function progressText({ progress, framesDone, framesTotal }) {
  const frames = [framesDone, framesTotal].filter((count) => count !== undefined);
  return `${Math.floor(progress)} %${frames.length ? `, ${frames.join(" of ")} frames` : ""}`;
}

/** Return the files of an output in words, from a page of the list of files: "12 frames, 3.4 MB, 2 missing". */
export function filesText({ totalFiles, totalSize, missingFrames, leftOut }, kind) {
  const noun = (kind === "sequence" ? "frame" : "file") + (totalFiles === 1 ? "" : "s");
  const missing = Object.values(missingFrames ?? {}).reduce((sum, count) => sum + count, 0);
  return [
    `${totalFiles} ${noun}`,
    formatSize(totalSize),
    missing && `${missing} missing`,
    leftOut && `${leftOut} that cannot be served`,
  ].filter(Boolean).join(", ");
}

/** Parse a job's document. Integers that JavaScript cannot represent become text with all their digits. */
export function parseJob(text) {
  return JSON.parse(text, (_name, value, context) =>
    typeof value === "number" && !Number.isSafeInteger(value) && /^-?\d+$/.test(context?.source) ? context.source : value);
}

/** Return a value of the metadata as text: short ones in one line. */
export function metadataText(value) {
  if (typeof value === "string") return value;
  const line = JSON.stringify(value);
  return line.length > 80 ? JSON.stringify(value, null, 2) : line.replaceAll(/,(?=["\d[{tfn-])/g, ", ");
}
