/** What the job page says about a job. Pure functions. */

import { jobUrl } from "../api.js";
import { formatAge, formatDuration, formatSize } from "../format.js";
import { endText, framesText } from "../jobs/job_row.js";

const SHOWN = /^(video\/(mp4|webm|quicktime|ogg)|image\/(png|jpeg|gif|webp|avif|bmp))$/;
const MAX_TEXT = 2000;

/** Return "video" or "image" if browsers show an output, otherwise undefined. */
export function shownAs({ contentType }) {
  return SHOWN.test(contentType) ? contentType.split("/")[0] : undefined;
}

/** Return the outputs to look at, `{video, image}`, where there are such. */
export function choosePreview(outputs) {
  const sorted = ["preview", "main", "thumbnail"].flatMap((role) => outputs.filter((output) => output.role === role));
  const find = (kind) => sorted.find((output) => shownAs(output) === kind);
  return { video: find("video"), image: find("image") };
}

/** Return the URL of an output that is a file, with its version. */
export function fileUrl(id, { name, downloadUrl }) {
  return `${jobUrl(id, "files", name)}?${downloadUrl.split("?")[1]}`;
}

/**
 * Return the rows of the list of outputs: `output` (undefined for all files), `title`, `downloads` (texts and URLs),
 * `link` (the body of a request for a link, if the API has one) and `query` (of the list of files, unless it is one).
 */
export function outputRows({ id, outputPath, outputs }) {
  const archive = (format, query) => [`Download ${format}`, jobUrl(id, `archive.${format}`) + query];
  const archives = (query) => [archive("tar", query), archive("zip", query)];
  const all = { title: "All files", query: "", downloads: archives(""), link: { archive: "zip" } };
  const rows = outputs.map((output) => {
    const title = (output.role === "main" && outputPath?.match(/([^/]+)\/*$/)?.[1]) || output.name;
    const query = `?output=${output.name}`;
    if (output.kind !== "file") {
      return { output, title, query, downloads: archives(query), link: output.role === "main" ? {} : undefined };
    }
    const link = { file: output.name, inline: Boolean(shownAs(output)) };
    return { output, title, downloads: [["Download", fileUrl(id, output)]], link };
  });
  if (rows.length === 1 && rows[0].query) return [{ ...all, ...rows[0], link: all.link }];
  return rows.length === 1 ? rows : [...rows, all];
}

/** Return a page of the list of files in words: "12 files, 3.4 MB, 2 frames missing". */
export function filesText({ totalFiles, totalSize, missingFrames = {} }) {
  const missing = Object.values(missingFrames).reduce((sum, count) => sum + count, 0);
  return `${totalFiles} files, ${formatSize(totalSize)}${missing ? `, ${missing} frames missing` : ""}`;
}

/** Return a phrase about a job's state at `now`, in milliseconds since the epoch: "3 h ago, took 2 min, 100 %". */
export function summary(job, now) {
  const end = endText(job, now);
  const frames = framesText(job);
  const progress = [`${Math.floor(job.progress)} %`, frames !== "" && `${frames} frames`];
  const since = job.status === "queued" ? job.createdAt : (job.startedAt ?? job.updatedAt);
  const times = job.done
    ? [formatAge(job.completedAt ?? job.updatedAt, now), end]
    : [`for ${formatDuration((now - Date.parse(since)) / 1000)}`, end && `ends ${end}`];
  return [...times, ...progress].filter(Boolean).join(", ");
}

/** Parse a job's document. Integers that JavaScript cannot represent become text, with all their digits. */
export function parseJob(text) {
  return JSON.parse(text, (_name, value, context) => {
    return Number.isInteger(value) && !Number.isSafeInteger(value) ? (context?.source ?? value) : value;
  });
}

/** Return a value of the farm as text, which ends after some lines. */
export function valueText(value) {
  const text = typeof value === "string" ? value : JSON.stringify(value);
  return text.length > MAX_TEXT ? `${text.slice(0, MAX_TEXT)}… (${formatSize(text.length)})` : text;
}
