/** Shows a film, a sound or an image of a job. */

import { request } from "../api.js";
import { html, useState } from "../html.js";
import { fileUrl } from "./job_model.js";

/** `preview` as `choosePreview` returns it. */
export function Preview({ id, preview: { kind, output, poster } }) {
  const [failure, setFailure] = useState("");
  const url = fileUrl(id, output.name, output);
  const media = {
    src: url,
    key: url,
    onError: async () => setFailure(await reason(url)),
    ...(kind === "image"
      ? { alt: `Output ${output.name}` }
      : { controls: true, preload: "metadata", playsInline: true, poster: poster && fileUrl(id, poster.name, poster) }),
  };
  if (failure) return html`<p class="notice warning" role="alert">No preview: ${failure}</p>`;
  return html`<section class="preview" aria-label="Preview"><${kind === "image" ? "img" : kind} ...${media} /></section>`;
}

/** Return why a browser could not load a file: elements have no error of the service. */
async function reason(url) {
  try {
    await request(url, { headers: { Range: "bytes=0-0" } });
    return "this browser cannot play this file. Download it and open it in another player.";
  } catch (error) {
    return error.message;
  }
}
