/** The SHA-256 of an output: the service computes it on request. */

import { getJson, jobUrl } from "../api.js";
import { html, useEffect, useState } from "../html.js";
import { CopyButton } from "./copy_button.js";

const MAX_INTERVAL_MS = 10_000;

/** `known`: the digest if the job's document has it. */
export function Digest({ id, output, known }) {
  const [isRequested, setIsRequested] = useState(false);
  const [result, setResult] = useState(null);
  useEffect(() => {
    if (!isRequested) return undefined;
    const stopped = new AbortController();
    waitForDigest(id, output.name, stopped.signal).then(
      (digest) => setResult(digest),
      (error) => stopped.signal.aborted || (setIsRequested(false), setResult(error)),
    );
    return () => stopped.abort();
  }, [isRequested]);
  const digest = known ?? (typeof result === "string" ? result : null);
  if (digest) {
    return html`<p class="digest">SHA-256 <code>${digest}</code> <${CopyButton} text=${digest}>Copy<//></p>`;
  }
  if (isRequested) return html`<p class="digest muted" role="status">SHA-256 is being computed…</p>`;
  return html`<button onClick=${() => setIsRequested(true)}>SHA-256</button>
    ${result && html`<span role="alert">${result.message}</span>`}`;
}

/** Request the digest of a file until it is known. Throws ApiError, and an AbortError if the signal stops it. */
async function waitForDigest(id, outputName, signal) {
  const url = `${jobUrl(id, "files")}?output=${outputName}&limit=1`;
  for (let interval = 300; ; interval = Math.min(interval * 1.5, MAX_INTERVAL_MS)) {
    const { files } = await getJson(url, { signal, headers: { "Want-Repr-Digest": "sha-256=1" } });
    if (files[0]?.sha256) return files[0].sha256;
    await new Promise((resolve) => setTimeout(resolve, interval));
    signal.throwIfAborted();
  }
}
