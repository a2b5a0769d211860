/** What the log page shows: the part of the log in memory, where the reader is in it, and whether it is live. */

import { getJson, jobUrl } from "../api.js";
import { countNewlines, join, parseFragment, readBlocks, searchBytes, splitLines } from "./log_lines.js";

const NEAR = 2 ** 18; // bytes before and after the reader's position that are read; at most twice as many are kept
const COUNTED = 2 ** 24; // the lines of logs of up to so many bytes are counted without being asked to
const SEARCHED = [2 ** 20, 2 ** 26]; // bytes of the first and of the largest part that is searched at once
const WHOLE = 2 ** 53; // no log has more bytes
const RECONNECT_MS = 5000;

const newLog = () => ({
  size: 0,
  start: 0, // offset of `bytes`, which are in memory
  bytes: new Uint8Array(),
  lines: [], // of `bytes`
  points: [{ offset: 0, number: 1 }], // numbers of lines, as far as they have been counted
  anchor: null, // the top of the window, {offset, rows}: rows below a line; null: the end is followed
  newLines: 0, // since the end was left
  search: null, // as in searchBytes, with the line that is shown as `current`
});

export class LogModel {
  isLoaded = false;
  connection = "connecting"; // "live", "lost", "ended", "gone", "stopped"
  tasks = {}; // AbortControllers of what is being read, by purpose: view, count, search

  /** `onChange` is called after each change. */
  constructor(id, onChange) {
    Object.assign(this, newLog(), { id, onChange });
  }

  get end() {
    return this.start + this.bytes.length;
  }

  get isUncounted() {
    return Number.isNaN(this.lines[0]?.number);
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
    on("reset", () => this.set(newLog()));
    on("end", ({ data }) => this.finish(JSON.parse(data)));
    on("error", async () => {
      connected("lost");
      if (this.source.readyState !== EventSource.CLOSED) return; // it tries again by itself
      const job = await this.loadJob();
      if (this.connection !== "lost") return;
      if (job?.done) return this.finish(job);
      this.isLoaded &&= this.anchor !== null; // so that the end is read again
      this.timer = setTimeout(() => this.follow(), RECONNECT_MS);
    });
    this.loadJob();
  }

  stop() {
    this.connection = "stopped";
    this.source.close();
    [this.timer, this.moving].forEach(clearTimeout);
    Object.values(this.tasks).forEach((task) => task.abort());
  }

  /** Return the job, or nothing if that is not possible, as of a job that has been deleted. */
  async loadJob() {
    const job = await getJson(jobUrl(this.id)).catch(({ status }) => status === 404 && this.set({ connection: "gone" }));
    if (job) this.set({ status: job.status });
    return job;
  }

  finish({ status }) {
    this.source.close();
    this.set({ status, connection: "ended" });
    this.fill();
  }

  receive(offset, bytes) {
    this.size = Math.max(this.size, offset + bytes.length);
    if (this.status === "queued") this.loadJob();
    if (!this.isLoaded) return;
    if (this.anchor) this.newLines += countNewlines(bytes.subarray(Math.max(0, this.end - offset)));
    if (offset <= this.end) this.hold(this.start, join(this.bytes.subarray(0, offset - this.start), bytes));
    this.fill();
    this.onChange();
  }

  /** Have bytes in memory, as far as they are near the reader. */
  hold(start, bytes) {
    this.start = Math.max(start, this.position - 2 * NEAR);
    this.bytes = bytes.slice(this.start - start, this.position + 2 * NEAR - start);
    this.splitLines();
    if (this.search) searchBytes(this.search, this.start, this.bytes, true);
  }

  /** Find the lines in memory. They have numbers if the log has been counted up to one of them. */
  splitLines() {
    const { start, bytes, end, points } = this;
    const point = points.findLast(({ offset }) => offset >= start && offset <= end);
    const number = point ? point.number - countNewlines(bytes.subarray(0, point.offset - start)) : NaN;
    this.lines = splitLines(start, bytes, true, number);
    const last = this.lines.at(-1);
    if (last?.number && last.offset > points.at(-1).offset + NEAR) points.push({ offset: last.offset, number: last.number });
    this.onChange();
  }

  /** Where the reader is: the offset of the line at the top, or the end. */
  get position() {
    return Math.min(this.anchor?.offset ?? this.size, this.size);
  }

  /** The part of the log to read next, `[from, to]`; null: enough of it is in memory. */
  get missing() {
    const { start, end, size, position } = this;
    if (!this.isLoaded) return [-NEAR, 0]; // which tells the size, too
    const isEnough = (length) => length > NEAR / 4;
    if ((start === 0 || isEnough(position - start)) && (end === size || isEnough(end - position))) return null;
    return [Math.max(0, position - NEAR), Math.min(size, position + NEAR)];
  }

  fill() {
    if (this.tasks.view || !this.missing) return;
    this.run("view", async (signal) => {
      while (this.missing) {
        const [from, to] = this.missing;
        let [start, bytes] = [0, new Uint8Array()];
        for await (const block of this.read(from, to, signal)) {
          start = block.start - bytes.length;
          bytes = join(bytes, block.bytes);
        }
        this.isLoaded = from < 0 || start + bytes.length >= to; // otherwise the log is shorter than it was
        if (this.isLoaded) this.hold(start, bytes);
        else this.set(newLog());
      }
      if (this.isUncounted && this.size < COUNTED && !this.tasks.count) this.countLines();
    });
  }

  /** Run the only task of a purpose: an earlier one is stopped. */
  async run(purpose, work) {
    this.tasks[purpose]?.abort();
    const task = (this.tasks[purpose] = new AbortController());
    const error = await work(task.signal).catch((reason) => reason);
    if (task.signal.aborted) return;
    delete this.tasks[purpose];
    this.set(error?.code === "log-missing" ? { isLoaded: true } : { error });
  }

  async *read(from, to, signal) {
    for await (const block of readBlocks(this.id, from, to, signal)) {
      this.size = Math.max(this.size, block.size);
      yield block;
      this.onChange();
    }
  }

  /** Show the first line that a fragment names, or the end. */
  goTo(fragment) {
    const { unit, from = null } = parseFragment(fragment) ?? {};
    if (unit !== "L") return this.goToOffset(from);
    const show = () => {
      const { offset } = this.points.findLast(({ number }, index) => number <= from || index === 0);
      this.moveTo(this.points.at(-1).number > from ? { offset, number: from, rows: -4 } : null);
    };
    this.count(({ number }) => number > from, show);
  }

  /** Show the line at an offset near the top of the window; null: follow the end. */
  goToOffset(offset) {
    this.moveTo(offset === null ? null : { offset, rows: -4 });
  }

  moveTo(anchor, delay = 0) {
    this.set({ anchor, newLines: anchor && this.anchor ? this.newLines : 0 });
    clearTimeout(this.moving);
    this.moving = setTimeout(() => this.fill(), delay);
  }

  /** Count lines, from where counting has ended, until `isEnough` of a point; then call `done`. */
  count(isEnough, done) {
    const { points } = this;
    this.run("count", async (signal) => {
      let point = points.at(-1);
      const blocks = isEnough(point) ? [] : this.read(point.offset, WHOLE, signal);
      for await (const { start, bytes } of blocks) {
        point = { offset: start + bytes.length, number: point.number + countNewlines(bytes) };
        if (point.offset > points.at(-1).offset) points.push(point);
        if (isEnough(point)) break;
      }
      done();
    });
  }

  /** Count lines until those in memory have numbers. */
  countLines() {
    this.count(({ offset }) => offset >= this.end, () => this.splitLines());
  }

  /** Search what is in memory for a text; without one, end the search. */
  setQuery(query) {
    this.tasks.search?.abort();
    this.search = query ? { query, found: [], current: null } : null;
    if (query && this.bytes.length) searchBytes(this.search, this.start, this.bytes, true);
    this.onChange();
  }

  /** Show the nearest line that contains the text, further back (direction -1) or forward (1) in the log. */
  find(direction) {
    const { search, bottom, anchor } = this;
    if (search?.to === undefined) return;
    const isBack = direction < 0;
    const position = search.current ?? (isBack ? bottom + 1 : (anchor?.offset ?? Infinity));
    this.run("search", async (signal) => {
      for (let [length, most] = SEARCHED; ; length = Math.min(length * 4, most)) {
        const { query, found, from, to } = search;
        const line = isBack ? found.findLast((each) => each < position) : found.find((each) => each > position);
        if (line !== undefined) return this.goToOffset((search.current = line));
        const range = isBack ? [Math.max(0, from - length), from] : [to, to + length];
        const part = isBack ? { query, found: [] } : search;
        for await (const { start, bytes } of this.read(...range, signal)) {
          searchBytes(part, start, bytes, isBack && start === range[0]);
        }
        if (isBack) Object.assign(search, { from: part.from ?? from, found: part.found.concat(search.found) });
        if (search.from === from && search.to === to) return;
      }
    });
  }
}
