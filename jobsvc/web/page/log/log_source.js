/** Reads a log: parts of it by range requests, what is written to it by an event stream. */

import { jobUrl, request } from "../api.js";
import { join } from "./log_buffer.js";

const BLOCK_BYTES = 128 * 1024;

/** Return a part of a log, `{start, bytes, size}`; with a negative `from` its end. No bytes if the log ends before. */
export async function readRange(id, from, to, signal) {
  const { response, ...range } = await requestRange(id, from, to, signal);
  return { ...range, bytes: new Uint8Array(response ? await response.arrayBuffer() : 0) };
}

/** Read a part of a log, however large, in blocks of whole lines, `{start, bytes}`: those that begin in this part. */
export async function* readBlocks(id, from, to, signal) {
  const { response, start } = await requestRange(id, Math.max(0, from - 1), to, signal);
  const reader = response?.body.getReader();
  let [at, rest, isAligned, isOver] = [start, new Uint8Array(), from === 0, !reader];
  try {
    while (!isOver || rest.length) {
      if (!isOver && rest.length < BLOCK_BYTES) {
        const { value, done } = await reader.read();
        [rest, isOver] = [done ? rest : join(rest, value), done];
        continue;
      }
      const skipped = isAligned ? 0 : rest.indexOf(10) + 1 || rest.length;
      const end = Math.max(skipped, rest.lastIndexOf(10, 2 * BLOCK_BYTES) + 1 || rest.length); // a longer line is cut
      isAligned ||= rest[skipped - 1] === 10;
      if (end > skipped) yield { start: at + skipped, bytes: rest.subarray(skipped, end) };
      [at, rest] = [at + end, rest.subarray(end)];
    }
  } finally {
    reader?.cancel();
  }
}

/** Request a range, `{response, start, size}`. Waits while the service allows no further request. */
async function requestRange(id, from, to, signal) {
  const wanted = from < 0 ? from : `${from}-${to === Infinity ? "" : to - 1}`;
  for (;;) {
    try {
      const options = { headers: { Range: `bytes=${wanted}` }, cache: "no-store", signal };
      const response = await request(jobUrl(id, "logs"), options);
      const range = response.headers.get("Content-Range") ?? "0-0/0"; // absent: an empty log
      const [start, , size] = range.match(/\d+/g).map(Number);
      return { response, start, size };
    } catch (error) {
      if (error.status === 416) return { response: null, start: 0, size: 0 };
      if (error.code !== "rate-limited") throw error;
      await new Promise((resolve) => setTimeout(resolve, (error.retryAfter ?? 5) * 1000));
      signal.throwIfAborted();
    }
  }
}

/**
 * Follow a log from now on. `onOpen()`: connected, also after an interruption. `onData(offset, bytes)`. `onReset()`:
 * the log begins again. `onEnd(status)`. `onLost(isClosed)`: not connected; if closed, it does not try again by itself.
 */
export function followLog(id, { onOpen, onData, onReset, onEnd, onLost }) {
  const source = new EventSource(`${jobUrl(id, "logs")}?follow=1&base64=1&tail=0`);
  const receive = ({ data, lastEventId }) => {
    const bytes = Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
    onData(Number(lastEventId.split(":")[1]) - bytes.length, bytes);
  };
  source.onopen = onOpen;
  source.onerror = () => onLost(source.readyState === EventSource.CLOSED);
  source.addEventListener("log", receive);
  source.addEventListener("part", receive);
  source.addEventListener("reset", onReset);
  source.addEventListener("end", ({ data }) => onEnd(JSON.parse(data).status));
  return source;
}
