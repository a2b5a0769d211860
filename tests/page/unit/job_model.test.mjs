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

test("films, sounds and images are shown, documents that can have scripts are not", () => {
  const types = ["video/mp4", "audio/mpeg", "image/png", "image/svg+xml", "text/html", "image/x-exr", "xvideo/mp4"];
  const kinds = types.map((contentType) => model.shownAs({ contentType, size: 1 }));
  assert.deepEqual(kinds, ["video", "audio", "image", undefined, undefined, undefined, undefined]);
});

test("a very large image is not loaded, a film of any size is", () => {
  assert.equal(model.shownAs({ contentType: "image/png", size: 1e9 }), undefined);
  assert.equal(model.shownAs({ contentType: "video/mp4", size: 1e12 }), "video");
});

test("the preview is shown rather than the main output, and a film rather than an image", () => {
  const main = file("main", "main", "video/mp4");
  const proxy = file("proxy", "preview", "video/webm");
  const poster = file("poster", "preview", "image/jpeg");
  assert.equal(model.choosePreview([main, proxy]).output, proxy);
  assert.deepEqual(model.choosePreview([poster, main]), { kind: "video", output: main, poster });
});

test("a small image is the poster before the preview", () => {
  const [preview, thumbnail] = [file("p", "preview", "image/png"), file("t", "thumbnail", "image/png")];
  assert.equal(model.choosePreview([preview, thumbnail, file("m", "main", "video/mp4")]).poster, thumbnail);
});

test("data, sequences and files that no browser shows have no preview", () => {
  const outputs = [file("d", "data", "video/mp4"), sequence("s", "main"), file("x", "preview", "image/x-exr")];
  assert.equal(model.choosePreview(outputs), undefined);
});

test("a single file has one row, with its version in the URL", () => {
  const job = { id: "a", outputPath: "output/film.mp4", outputs: [file("main", "main", "video/mp4")] };
  const [row, ...more] = model.outputRows(job);
  assert.equal(more.length, 0);
  assert.equal(row.title, "film.mp4");
  assert.deepEqual(row.downloads, [["Download", `api/jobs/a/download?${VERSION}`]]);
  assert.deepEqual(row.link, {});
});

test("a single sequence has both archives, and a link to either", () => {
  const job = { id: "a", outputPath: "output/b.####.exr", outputs: [sequence("main", "main")] };
  const [row, ...more] = model.outputRows(job);
  assert.equal(more.length, 0);
  assert.deepEqual(row.downloads.map(([, url]) => url), ["api/jobs/a/archive.tar?output=main", "api/jobs/a/archive.zip?output=main"]);
  assert.deepEqual(row.link, { archive: "zip" });
});

test("several outputs have a row for all files, and links where the API has them", () => {
  const outputs = [file("main", "main", "video/mp4"), file("notes", "data", "text/plain"), sequence("beauty")];
  const rows = model.outputRows({ id: "a", outputs });
  assert.deepEqual(rows.map((row) => row.title), ["main", "notes", "beauty", "All files"]);
  assert.deepEqual(rows.map((row) => row.link), [{}, { file: "notes" }, undefined, { archive: "zip" }]);
  assert.equal(rows[1].downloads[0][1], `api/jobs/a/files/notes?${VERSION}`);
  assert.equal(rows[3].downloads[0][1], "api/jobs/a/archive.tar");
});

test("the main output has its file name as title, whatever its path", () => {
  const titleOf = (outputPath) => model.outputRows({ id: "a", outputPath, outputs: [file("m", "main", "x/y")] })[0].title;
  assert.deepEqual(["film.mp4", "/a/b c.mp4", "passes/", "/", undefined].map(titleOf), ["film.mp4", "b c.mp4", "passes", "m", "m"]);
});

test("paths of files are encoded", () => {
  assert.equal(
    model.fileUrl("a", "main", { downloadUrl: `x?${VERSION}`, path: "sub/ä #?.exr" }),
    `api/jobs/a/files/main/sub/%C3%A4%20%23%3F.exr?${VERSION}`,
  );
});

test("missing frames of all outputs are counted", () => {
  const page = { totalFiles: 1, totalSize: 1500, missingFrames: { a: 2, b: 3 }, leftOut: 1 };
  assert.equal(model.filesText(page, "frame"), "1 frame, 1.5 kB, 5 missing, 1 that cannot be served");
  assert.equal(model.filesText({ totalFiles: 0, totalSize: 0 }, "file"), "0 files, 0 B");
});

const NOW = Date.parse("2026-01-01T12:00:00Z");

function at(time) {
  return `2026-01-01T${time}Z`;
}

test("a finished job says when, and how long it took", () => {
  const times = { done: true, updatedAt: at("11:30:00"), startedAt: at("10:00:00"), completedAt: at("11:00:00") };
  assert.equal(model.summary({ status: "completed", ...times }, NOW), "1 h ago, took 1 h");
  assert.equal(model.summary({ status: "failed", ...times }, NOW), "1 h ago, after 1 h");
  assert.equal(model.summary({ status: "failed", done: true, updatedAt: at("11:30:00") }, NOW), "30 min ago");
});

test("a job in progress says for how long, and what remains", () => {
  const job = { status: "rendering", createdAt: at("10:00:00"), startedAt: at("11:00:00"), updatedAt: at("11:59:00") };
  assert.equal(model.summary(job, NOW), "for 1 h");
  assert.equal(model.summary({ ...job, estimatedCompletionAt: at("12:20:00") }, NOW), "for 1 h, ends in 20 min");
  assert.equal(model.summary({ ...job, estimatedCompletionAt: at("11:45:00") }, NOW), "for 1 h, ends any moment");
  assert.equal(model.summary({ status: "queued", createdAt: at("10:00:00") }, NOW), "for 2 h");
});

test("progress is never rounded up", () => {
  assert.equal(model.progressText({ progress: 99.97 }), "99 %");
  assert.equal(model.progressText({ progress: 42, framesDone: 105, framesTotal: 250 }), "42 %, 105 / 250 frames");
  assert.equal(model.progressText({ progress: 0, framesDone: 0 }), "0 %, 0 frames");
});

test("metadata is text in one line", () => {
  const values = ["a\nb", 1.5, null, [640, 360], { a: ["x, y"], b: {} }].map(model.metadataText);
  assert.deepEqual(values, ["a\nb", "1.5", "null", "[640,360]", '{"a":["x, y"],"b":{}}']);
});
