/** What the log page shows: the part of the log in memory, where the reader is in it, and whether it is live. */

import { getJson, jobUrl } from "../api.js";
import { countNewlines, join, parseFragment, readBlocks, searchLines, splitLines } from "./log_lines.js";

const NEAR_BYTES = 256 * 1024; // before and after the reader's position that are in memory; at most twice as much
const COUNTED_BYTES = 16 * 1024 * 1024; // the lines of logs up to this size are counted without being asked to
const SEARCHED_BYTES = [1024 * 1024, 64 * 1024 * 1024]; // the first and the largest part that is searched at once
const RECONNECT_MS = 5000;

/** Return what is known of a log at first. */
const nothingKnown = () => ({
  ...{ start: 0, bytes: new Uint8Array(), number: 1, lines: [] }, // in memory; `number` at the start is NaN if not known
  points: [{ offset: 0, number: 1 }], // numbers of lines, as far as they have been counted
  size: 0,
  anchor: null, // the line at the top of the window, {offset, rows}; null: the end, which is followed
  newLines: 0, // since the end was left
  search: null, // {query, found, from, to, current}: offsets of lines, and of the part that has been searched
});

export class LogModel {
  isLoaded = false;
  connection = "connecting"; // "live", "lost", "ended", "gone", "stopped"
  status = null; // of the job
  error = null;
  tasks = {}; // AbortControllers of what is being read, by purpose: view, count, search

  /** `onChange` is called after each change. */
  constructor(id, onChange) {
    Object.assign(this, nothingKnown(), { id, onChange });
  }

  get end() {
    return this.start + this.bytes.length;
  }

  get isUncounted() {
    return Number.isNaN(this.number);
  }

  set(values) {
    Object.assign(this, values);
    this.onChange();
  }

  /** Follow the log from now on, and show what a fragment of the address names. */
  follow(fragment) {
    this.source = new EventSource(`${jobUrl(this.id, "logs")}?follow=1&base64=1&tail=0`);
    const on = (name, listener) => this.source.addEventListener(name, listener);
    const connected = (connection) => {
      this.set({ connection });
      if (!this.isLoaded) this.goTo(fragment);
    };
    const receive = ({ data, lastEventId }) => {
      const bytes = Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
      this.receive(Number(lastEventId.split(":")[1]) - bytes.length, bytes);
    };
    on("open", () => connected("live"));
    on("log", receive);
    on("part", receive);
    on("reset", () => this.set(nothingKnown()));
    on("end", ({ data }) => this.finish(JSON.parse(data).status));
    on("error", () => {
      connected("lost");
      if (this.source.readyState === EventSource.CLOSED) this.reconnect();
    });
    this.loadJob();
  }

  stop() {
    this.connection = "stopped";
    this.source.close();
    clearTimeout(this.timer);
    clearTimeout(this.move);
    Object.values(this.tasks).forEach((task) => task.abort());
  }

  /** Read the state of the job. Returns undefined if that is not possible, as of a job that has been deleted. */
  async loadJob() {
    const job = await getJson(jobUrl(this.id)).catch((error) => error.status === 404 && this.set({ connection: "gone" }));
    if (job) this.set({ status: job.status });
    return job;
  }

  /** The event stream was refused: all of the log has been written, or it can be tried again later. */
  async reconnect() {
    const job = await this.loadJob();
    if (this.connection !== "lost") return;
    if (job?.done) this.finish(job.status);
    else this.timer = setTimeout(() => this.follow(), RECONNECT_MS);
    if (!this.anchor) this.isLoaded = false; // until then, the end is read again and again
  }

  finish(status) {
    this.source.close();
    this.set({ status, connection: "ended" });
    this.fill();
  }

  /** Take what was written. */
  receive(offset, bytes) {
    this.size = Math.max(this.size, offset + bytes.length);
    if (this.status === "queued") this.loadJob();
    if (!this.isLoaded) return;
    if (this.anchor) this.newLines += countNewlines(bytes.subarray(Math.max(0, this.end - offset)));
    if (offset <= this.end) this.hold(offset, bytes);
    this.fill();
    this.onChange();
  }

  /** Where the reader is: the offset of the line at the top, or the end. */
  get position() {
    return Math.min(this.anchor?.offset ?? this.size, this.size);
  }

  /** Have bytes in memory, with what is there if they adjoin, otherwise instead. What is far from the reader is dropped. */
  hold(offset, added) {
    const [first, last] = [this.position - 2 * NEAR_BYTES, this.position + 2 * NEAR_BYTES];
    if (offset > last || offset + added.length < first) return;
    const isBeside = offset <= this.end && offset + added.length >= this.start;
    const { number = NaN } = this.points.find((point) => point.offset === offset) ?? {};
    const known = isBeside ? this : { start: offset, end: offset, bytes: [], number };
    const start = Math.min(known.start, offset);
    const bytes = new Uint8Array(Math.max(known.end, offset + added.length) - start);
    bytes.set(known.bytes, known.start - start);
    bytes.set(added, offset - start);
    this.start = Math.max(start, first);
    this.bytes = bytes.slice(this.start - start, last - start);
    const countTo = (end) => countNewlines(bytes.subarray(0, end - start));
    this.setNumber(known.number - countTo(known.start) + countTo(this.start));
    if (this.search) searchLines(this.search, this.lines.filter((line) => line.offset + line.bytes.length > offset));
  }

  setNumber(number) {
    this.number = this.start ? number : 1;
    this.lines = splitLines(this.start, this.bytes, this.start > 0, this.number);
    this.onChange();
  }

  /** Return the next part to read, `[from, to]`; null: what is near the reader is in memory. */
  get missing() {
    const { start, end, size, points, position } = this;
    if (!this.isLoaded) return [-NEAR_BYTES, 0]; // which tells the size, too
    const [from, to] = [Math.max(0, position - NEAR_BYTES), Math.min(size, position + NEAR_BYTES)];
    if (position < start || position > end) {
      const { offset } = points.findLast((point) => point.offset <= from); // so that lines have numbers at once
      return [offset > from - NEAR_BYTES ? offset : from, to];
    }
    if (from < start) return [Math.max(0, from - NEAR_BYTES), start];
    return to > end ? [end, to + NEAR_BYTES] : null;
  }

  /** Read what is near the reader. */
  fill() {
    if (this.tasks.view || !this.missing) return;
    this.run("view", async (signal) => {
      while (this.missing) {
        const [from, to] = this.missing;
        let [start, bytes] = [null, new Uint8Array()];
        for await (const block of this.read(from, to, signal)) [start, bytes] = [start ?? block.start, join(bytes, block.bytes)];
        if (start === null) this.set(nothingKnown()); // the log is shorter than it was
        else this.hold(start, bytes);
        this.isLoaded = from < 0 || start !== null;
      }
      if (this.isUncounted && (this.size < COUNTED_BYTES || this.points.at(-1).offset > this.start)) this.countLines();
    });
  }

  /** Run the only task of a purpose: an earlier one is stopped. */
  async run(purpose, work) {
    this.tasks[purpose]?.abort();
    const task = (this.tasks[purpose] = new AbortController());
    this.error = null;
    const error = await work(task.signal).then(() => null, (reason) => reason);
    if (task.signal.aborted) return;
    delete this.tasks[purpose];
    this.set(error?.code === "log-missing" ? { isLoaded: true } : { error });
  }

  /** Yield a part of the log in blocks. */
  async *read(from, to, signal) {
    const known = this.size;
    for await (const block of readBlocks(this.id, from, to, signal)) {
      if (block.size < known) this.set(nothingKnown());
      this.size = Math.max(this.size, block.size);
      yield block;
      this.onChange();
    }
  }

  /** Show what a fragment names: line 12 (L12), lines 12 to 20 (L12-L20), the line at an offset (B12), or the end. */
  goTo(fragment) {
    const { unit, from = null } = parseFragment(fragment) ?? {};
    if (unit !== "L") return this.goToOffset(from);
    this.run("count", async (signal) => {
      const { offset } = await this.count(Number.MAX_SAFE_INTEGER, from, signal);
      this.goToOffset(offset < this.size ? offset : null);
    });
  }

  /** Show the line at an offset near the top of the window; null: follow the end. */
  goToOffset(offset) {
    this.moveTo(offset === null ? null : { offset, rows: -4 });
  }

  moveTo(anchor, delay = 0) {
    this.set({ anchor, newLines: anchor && this.anchor ? this.newLines : 0 });
    clearTimeout(this.move);
    this.move = setTimeout(() => this.fill(), delay);
  }

  /** Count the lines before those in memory, so that these have numbers. */
  countLines() {
    this.run("count", async (signal) => {
      while (this.isUncounted) {
        const { start } = this;
        const { number } = await this.count(start, Infinity, signal);
        if (this.start === start) this.setNumber(number);
      }
    });
  }

  /** Count lines up to an offset, or to the line with a number. Returns where that was, `{offset, number}`. */
  async count(to, number, signal) {
    const { points } = this;
    let point = points.findLast((each) => each.offset <= to && each.number <= number) ?? points[0];
    for await (const { start, bytes } of this.read(point.offset, to, signal)) {
      const next = { offset: start + bytes.length, number: point.number + countNewlines(bytes) };
      if (next.number > number) return splitLines(start, bytes, false, point.number).find((line) => line.number >= number);
      if (next.offset > points.at(-1).offset) points.push(next);
      point = next;
    }
    return point;
  }

  /** Search what is in memory for a text; without one, end the search. */
  setQuery(query) {
    const { lines, tasks } = this;
    const from = lines[0]?.offset ?? 0;
    tasks.search?.abort();
    this.search = query ? { query, found: [], from, to: from, current: null } : null;
    if (query) searchLines(this.search, lines);
    this.onChange();
  }

  /** Show the nearest line that contains the text, further back (direction -1) or forward (1) in the log. */
  find(direction) {
    const { search } = this;
    if (!search) return;
    const position = search.current ?? (direction < 0 ? this.bottom + 1 : (this.anchor?.offset ?? Infinity));
    this.run("search", async (signal) => {
      for (let [length, most] = SEARCHED_BYTES; ; length = Math.min(length * 4, most)) {
        const { query, found, from, to } = search;
        const line = direction < 0 ? found.findLast((each) => each < position) : found.find((each) => each > position);
        if (line !== undefined) return this.goToOffset((search.current = line));
        const part = direction < 0 ? { query, found: [] } : search;
        const range = direction < 0 ? [Math.max(0, from - length), from] : [to, to + length];
        let isCut = direction < 0 && range[0] > 0;
        for await (const { start, bytes } of this.read(...range, signal)) {
          searchLines(part, splitLines(start, bytes, isCut));
          isCut = false;
        }
        if (direction < 0) Object.assign(search, { from: part.from ?? from, found: part.found.concat(found) });
        if (search.from === from && search.to === to) return;
      }
    });
  }
}
