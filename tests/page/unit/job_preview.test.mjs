import assert from "node:assert/strict";
import { test } from "node:test";

import { previewUrl } from "../../../jobsvc/web/page/job/outputs.js";

function file(name, role, contentType) {
  return { name, role, kind: "file", contentType, size: 10, downloadUrl: `/far/away/files/${name}?version=AAAA` };
}

/** Return the names of the outputs that are shown as a video and as an image. */
function shown(...outputs) {
  const urls = ["video", "image"].map((type) => previewUrl({ id: "a", outputs }, type));
  return urls.map((url) => url?.match(/^api\/jobs\/a\/files\/(.*)\?version=AAAA$/)[1]);
}

test("films and images are shown, documents that can have scripts are not", () => {
  const types = ["video/mp4", "image/png", "audio/mpeg", "image/svg+xml", "text/html", "image/x-exr", "xvideo/mp4", undefined];
  const names = types.map((contentType) => shown(file("a", "main", contentType)));
  assert.deepEqual(names, [["a", undefined], [undefined, "a"], ...Array(6).fill([undefined, undefined])]);
});

test("the preview is shown rather than the main output, and a thumbnail if there is nothing else", () => {
  const main = file("main", "main", "video/mp4");
  const proxy = file("proxy", "preview", "video/webm");
  const [poster, thumbnail] = [file("poster", "preview", "image/jpeg"), file("thumb", "thumbnail", "image/jpeg")];
  assert.deepEqual(shown(main, proxy), ["proxy", undefined]);
  assert.deepEqual(shown(thumbnail, poster, main), ["main", "poster"]);
  assert.deepEqual(shown(thumbnail), [undefined, "thumb"]);
});

test("data, sequences and files that no browser shows have no preview", () => {
  const sequence = { name: "s", role: "main", kind: "sequence", downloadUrl: "archive.tar?output=s" };
  assert.deepEqual(shown(file("d", "data", "video/mp4"), sequence, file("x", "preview", "image/x-exr")), [undefined, undefined]);
});
