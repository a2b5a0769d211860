/** Reads logs, and finds lines in their bytes. */

import { jobUrl, request } from "../api.js";
import { decode, lineText, plainText } from "./ansi.js";

const BLOCK_BYTES = 128 * 1024; // a longer line is cut

/** Yield a part of a log in blocks that end with a line, `{start, bytes, size}`; with a negative `from` its end. */
export async function* readBlocks(id, from, to, signal) {
  const response = from === to ? null : await requestRange(id, from < 0 ? from : `${from}-${to - 1}`, signal);
  if (!response) return;
  const range = response.headers.get("Content-Range") ?? "0-0/0"; // absent: an empty log
  let [start, , size] = range.match(/\d+/g).map(Number);
  let [bytes, isOver] = [new Uint8Array(), false];
  const reader = response.body.getReader();
  try {
    while (!isOver || bytes.length) {
      if (!isOver && bytes.length < BLOCK_BYTES) {
        const { value = [], done } = await reader.read();
        [bytes, isOver] = [join(bytes, value), done];
        continue;
      }
      const end = bytes.lastIndexOf(10, BLOCK_BYTES - 1) + 1 || Math.min(BLOCK_BYTES, bytes.length);
      yield { start, bytes: bytes.subarray(0, end), size };
      [start, bytes] = [start + end, bytes.subarray(end)];
    }
  } finally {
    reader.cancel().catch(() => {}); // rejects if the request was aborted
  }
}

/** Request a range; null: the log ends before. Waits while the service allows no further request. */
async function requestRange(id, range, signal) {
  for (;;) {
    try {
      return await request(jobUrl(id, "logs"), { headers: { Range: `bytes=${range}` }, cache: "no-store", signal });
    } catch (error) {
      if (error.status === 416) return null;
      if (error.code !== "rate-limited") throw error;
      await new Promise((resolve) => setTimeout(resolve, error.retryAfter * 1000));
    }
  }
}

/** Return the lines of bytes, `{offset, number, bytes}` with the line ends. `isCut`: the first one began before. */
export function splitLines(start, bytes, isCut, number = NaN) {
  const lines = [];
  let from = isCut && start ? (bytes.indexOf(10) + 1) % bytes.length : 0;
  if (from) number += 1;
  for (; from < bytes.length; number += 1) {
    const to = bytes.indexOf(10, from) + 1 || bytes.length;
    lines.push({ offset: start + from, number, bytes: bytes.subarray(from, to) });
    from = to;
  }
  return lines;
}

export function countNewlines(bytes) {
  let count = 0;
  for (let at = bytes.indexOf(10); at >= 0; at = bytes.indexOf(10, at + 1)) count += 1;
  return count;
}

export function join(first, second) {
  const joined = new Uint8Array(first.length + second.length);
  joined.set(first);
  joined.set(second, first.length);
  return joined;
}

/**
 * Search bytes, if they adjoin what has been searched: `{query, found, from, to}` with offsets of lines that contain the
 * text of the query. An incomplete last line is searched again when there is more of it. Capitals do not count.
 */
export function searchBytes(search, start, bytes, isCut) {
  const from = start + (isCut && start && (bytes.indexOf(10) + 1) % bytes.length);
  const to = start + bytes.lastIndexOf(10) + 1;
  if (from > search.to || to < search.from) return;
  const pattern = patternOf(search.query);
  const isFound = (text) => pattern.test(plainText(text));
  const lines = isFound(decode(bytes)) ? splitLines(start, bytes, isCut) : []; // which takes longer
  const found = lines.filter((line) => isFound(lineText(line.bytes))).map(({ offset }) => offset);
  const before = search.found.filter((offset) => offset < from);
  search.found = [...before, ...found, ...search.found.filter((offset) => offset >= start + bytes.length)];
  search.from = Math.min(search.from ?? from, from);
  search.to = Math.max(search.to ?? to, to);
}

export function patternOf(query) {
  return new RegExp(`(${query.replace(/[^\w\s]/g, "\\$&")})`, "i");
}

/** Return what a fragment names, `{unit, from, to}`: lines (L12, L12-L20) or an offset (B12). Null: nothing. */
export function parseFragment(fragment) {
  const [, unit, from, to = from] = fragment?.match(/^([LB])(\d{1,15})(?:-[LB]?(\d{1,15}))?$/) ?? [];
  return unit ? { unit, from: Math.min(from, to), to: Math.max(from, to) } : null;
}

export function isNamed(selected, { number, offset }) {
  const position = selected?.unit === "L" ? number : offset;
  return selected !== null && position >= selected.from && position <= selected.to;
}
