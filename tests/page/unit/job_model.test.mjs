import assert from "node:assert/strict";
import { test } from "node:test";

import * as model from "../../../jobsvc/web/page/job/job_model.js";

const VERSION = "version=AAAA";

function file(name, role, contentType, size = 10) {
  return { name, role, kind: "file", contentType, size, downloadUrl: `/far/away/files/${name}?${VERSION}` };
}

function sequence(name, role = "data") {
  return { name, role, kind: "sequence", downloadUrl: `archive.tar?output=${name}`, modifiedAt: "2026-01-01T00:00:00Z" };
}

test("films and images are shown, documents that can have scripts are not", () => {
  const types = ["video/mp4", "image/png", "audio/mpeg", "image/svg+xml", "text/html", "image/x-exr", "xvideo/mp4", undefined];
  const kinds = types.map((contentType) => model.shownAs({ contentType }));
  assert.deepEqual(kinds, ["video", "image", ...Array(6).fill(undefined)]);
});

test("the preview is shown rather than the main output, and a thumbnail if there is nothing else", () => {
  const main = file("main", "main", "video/mp4");
  const proxy = file("proxy", "preview", "video/webm");
  const [poster, thumbnail] = [file("poster", "preview", "image/jpeg"), file("thumb", "thumbnail", "image/jpeg")];
  assert.equal(model.choosePreview([main, proxy]).video, proxy);
  assert.deepEqual(model.choosePreview([thumbnail, poster, main]), { video: main, image: poster });
  assert.equal(model.choosePreview([thumbnail]).image, thumbnail);
});

test("data, sequences and files that no browser shows have no preview", () => {
  const outputs = [file("d", "data", "video/mp4"), sequence("s", "main"), file("x", "preview", "image/x-exr")];
  assert.deepEqual(model.choosePreview(outputs), { video: undefined, image: undefined });
});

test("a single file has one row, with its version in the URL", () => {
  const job = { id: "a", outputPath: "output/film.mp4", outputs: [file("main", "main", "video/mp4")] };
  const [row, ...more] = model.outputRows(job);
  assert.equal(more.length, 0);
  assert.equal(row.title, "film.mp4");
  assert.deepEqual(row.downloads, [["Download", `api/jobs/a/files/main?${VERSION}`]]);
  assert.deepEqual(row.link, { file: "main", inline: true });
});

test("a single sequence has both archives, and a link", () => {
  const job = { id: "a", outputPath: "output/b.####.exr", outputs: [sequence("main", "main")] };
  const [row, ...more] = model.outputRows(job);
  assert.equal(more.length, 0);
  assert.equal(row.title, "b.####.exr");
  assert.deepEqual(row.downloads.map(([, url]) => url), ["api/jobs/a/archive.tar?output=main", "api/jobs/a/archive.zip?output=main"]);
  assert.deepEqual(row.link, { archive: "zip" });
});

test("several outputs have a row for all files, and links where the API has them", () => {
  const outputs = [file("main", "main", "video/mp4"), file("notes", "data", "text/plain"), sequence("beauty")];
  const rows = model.outputRows({ id: "a", outputs });
  assert.deepEqual(rows.map((row) => row.title), ["main", "notes", "beauty", "All files"]);
  const links = [{ file: "main", inline: true }, { file: "notes", inline: false }, undefined, { archive: "zip" }];
  assert.deepEqual(rows.map((row) => row.link), links);
  assert.equal(rows[3].downloads[0][1], "api/jobs/a/archive.tar");
});

test("the main output has its file name as title, whatever its path", () => {
  const titleOf = (outputPath) => model.outputRows({ id: "a", outputPath, outputs: [file("m", "main", "x/y")] })[0].title;
  assert.deepEqual(["film.mp4", "/a/b c.mp4", "passes/", "/", undefined].map(titleOf), ["film.mp4", "b c.mp4", "passes", "m", "m"]);
});

test("missing frames of all outputs are counted", () => {
  const page = { totalFiles: 12, totalSize: 1500, missingFrames: { a: 2, b: 3 } };
  assert.equal(model.filesText(page), "12 files, 1.5 kB, 5 frames missing");
  assert.equal(model.filesText({ totalFiles: 0, totalSize: 0 }), "0 files, 0 B");
});

const NOW = Date.parse("2026-01-01T12:00:00Z");

function at(time) {
  return `2026-01-01T${time}Z`;
}

test("a finished job says when, and how long it took", () => {
  const times = { done: true, progress: 100, updatedAt: at("11:30:00"), startedAt: at("10:00:00"), completedAt: at("11:00:00") };
  assert.equal(model.summary({ status: "completed", ...times }, NOW), "1 h ago, took 1 h, 100 %");
  assert.equal(model.summary({ status: "failed", ...times, progress: 0 }, NOW), "1 h ago, after 1 h, 0 %");
  assert.equal(model.summary({ status: "failed", done: true, progress: 5, updatedAt: at("11:30:00") }, NOW), "30 min ago, 5 %");
});

test("a job in progress says for how long, and when it ends", () => {
  const job = { status: "rendering", progress: 5, createdAt: at("10:00:00"), startedAt: at("11:00:00") };
  assert.equal(model.summary(job, NOW), "for 1 h, 5 %");
  assert.equal(model.summary({ ...job, estimatedCompletionAt: at("12:20:00") }, NOW), "for 1 h, ends in 20 min, 5 %");
  assert.equal(model.summary({ ...job, estimatedCompletionAt: at("11:45:00") }, NOW), "for 1 h, ends any moment, 5 %");
  assert.equal(model.summary({ status: "queued", progress: 0, createdAt: at("10:00:00") }, NOW), "for 2 h, 0 %");
});

test("progress is never rounded up", () => {
  const job = { status: "queued", createdAt: at("10:00:00") };
  assert.equal(model.summary({ ...job, progress: 99.97 }, NOW), "for 2 h, 99 %");
  assert.equal(model.summary({ ...job, progress: 42, framesDone: 105, framesTotal: 250 }, NOW), "for 2 h, 42 %, 105 / 250 frames");
  assert.equal(model.summary({ ...job, progress: 0, framesDone: 0 }, NOW), "for 2 h, 0 %, 0 frames");
});

test("values of the farm are text, and long ones are cut", () => {
  const values = ["a\nb", 1.5, null, [640, 360], { a: ["x, y"], b: {} }].map(model.valueText);
  assert.deepEqual(values, ["a\nb", "1.5", "null", "[640,360]", '{"a":["x, y"],"b":{}}']);
  assert.match(model.valueText("W".repeat(1e6)), /^W{2000}… \(1.0 MB\)$/);
});
