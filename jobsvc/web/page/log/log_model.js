/** What the log page shows: the part of the log in memory, where the reader is in it, and whether it is live. */

import { getJson, jobUrl } from "../api.js";
import { countNewlines, LineIndex } from "./line_index.js";
import { parseFragment } from "./line_link.js";
import { LogBuffer } from "./log_buffer.js";
import { ROW } from "./log_layout.js";
import { LogSearch } from "./log_search.js";
import { followLog, readBlocks, readRange } from "./log_source.js";

const CHUNK_BYTES = 256 * 1024;
const COUNTED_BYTES = 16 * 1024 * 1024; // the lines of logs up to this size are counted without being asked to
const SEARCH_BYTES = [1024 * 1024, 64 * 1024 * 1024]; // the first and the largest part that is searched at once
const RECONNECT_MS = 5000;

export class LogModel {
  buffer = new LogBuffer();
  index = new LineIndex();
  size = 0;
  anchor = null; // the line at the top, {offset, pixels}; null: the end, which is followed
  lastVisible = 0; // offset of the line at the bottom of the window
  newLines = 0; // since the end was left
  search = null;
  state = "loading"; // "ready", "missing"
  connection = "connecting"; // "live", "lost", "ended", "gone", "stopped"
  status = null; // of the job
  error = null;
  tasks = {}; // AbortControllers of what is being read, by purpose: view, count, search

  /** `onChange` is called after each change. */
  constructor(id, onChange) {
    Object.assign(this, { id, onChange });
  }

  /** Follow the log, and show what a fragment of the address names. */
  start(fragment) {
    const connected = (connection) => {
      this.set({ connection });
      if (this.state === "loading") this.goTo(fragment);
    };
    this.source = followLog(this.id, {
      onOpen: () => connected("live"),
      onData: (offset, bytes) => this.receive(offset, bytes),
      onReset: () => this.reset(),
      onEnd: (status) => this.end(status),
      onLost: (isClosed) => {
        connected("lost");
        if (isClosed) this.reconnect();
      },
    });
    this.loadJob();
  }

  stop() {
    this.connection = "stopped";
    this.source.close();
    clearTimeout(this.timer);
    Object.values(this.tasks).forEach((task) => task.abort());
  }

  set(values) {
    Object.assign(this, values);
    this.onChange();
  }

  /** Run the only task of a purpose: an earlier one is stopped. Returns whether it was completed. */
  async run(purpose, work) {
    this.tasks[purpose]?.abort();
    const task = (this.tasks[purpose] = new AbortController());
    this.error = null;
    const error = await work(task.signal).then(() => null, (reason) => reason);
    if (task.signal.aborted) return false;
    delete this.tasks[purpose];
    this.set(error?.code === "log-missing" ? { state: "missing" } : { error });
    return error === null;
  }

  /** Read the state of the job. Returns null if that is not possible, as of a job that has been deleted. */
  async loadJob() {
    const job = await getJson(jobUrl(this.id)).catch((error) => error.status === 404 && this.set({ connection: "gone" }));
    if (job) this.set({ status: job.status });
    return job || null;
  }

  /** The event stream was refused: all of the log has been written, or it can be tried again later. */
  async reconnect() {
    const job = await this.loadJob();
    if (this.connection !== "lost") return;
    if (job?.done) this.end(job.status);
    else this.timer = setTimeout(() => this.start(), RECONNECT_MS);
    if (this.state === "ready" && !this.anchor) this.load(-CHUNK_BYTES);
  }

  end(status) {
    this.source.close();
    this.set({ status, connection: "ended" });
    if (!this.anchor && this.buffer.end < this.size) this.goToOffset(null);
  }

  reset() {
    Object.assign(this, { buffer: new LogBuffer(), index: new LineIndex(), search: null, size: 0 });
    this.set({ anchor: null, newLines: 0 });
  }

  /** Take what was written. If the reader is further up, nothing that they could read is dropped for it. */
  receive(offset, bytes) {
    const { buffer, anchor, state } = this;
    this.size = Math.max(this.size, offset + bytes.length);
    if (this.status === "queued") this.loadJob();
    if (state === "loading") return;
    const added = bytes.subarray(Math.max(0, buffer.end - offset));
    const isGap = offset > buffer.end;
    if (!isGap && !(anchor && buffer.isFull)) this.append(added);
    if (anchor) this.newLines += countNewlines(added);
    else if (!isGap) buffer.trimStart();
    else if (!this.tasks.view) this.goToOffset(null);
    this.set({ state: "ready" });
  }

  append(bytes) {
    const { buffer, search } = this;
    buffer.append(bytes);
    if (search && search.to >= buffer.start) search.addAfter(buffer.bytes.subarray(search.to - buffer.start));
  }

  /** Show what a fragment names: line 12 (L12), lines 12 to 20 (L12-L20), the line at an offset (B12), or the end. */
  goTo(fragment) {
    const { unit, from = null } = parseFragment(fragment) ?? {};
    return unit === "L" ? this.goToLine(from) : this.goToOffset(from);
  }

  /** Show the line at an offset; null: the end. */
  async goToOffset(offset) {
    const { buffer, size } = this;
    const isLoaded = offset === null ? buffer.end === size : offset >= buffer.start && offset < buffer.end;
    const from = offset === null ? -CHUNK_BYTES : Math.max(0, offset - CHUNK_BYTES / 2);
    if ((isLoaded && size) || (await this.load(from))) this.setAnchor(offset);
  }

  /** Have the line at an offset near the top of the window, with some lines before it; null: follow the end. */
  setAnchor(offset) {
    this.set(offset === null ? { anchor: null, newLines: 0 } : { anchor: { offset, pixels: -4 * ROW } });
  }

  /** Replace what is in memory by the lines at an offset; with a negative one, by the end of the log. */
  load(from) {
    return this.run("view", async (signal) => {
      const known = this.size;
      const { start, bytes, size } = await readRange(this.id, from, from + CHUNK_BYTES, signal);
      if (size < known) this.reset();
      if (from > 0 && !bytes.length) return this.load(-CHUNK_BYTES);
      const skipped = start && this.index.beforeOffset(start).offset !== start ? bytes.indexOf(10) + 1 : 0;
      this.buffer = new LogBuffer(start + skipped);
      this.buffer.append(bytes.subarray(skipped));
      this.set({ state: "ready", size: Math.max(size, this.size) });
      this.numberLines();
      if (this.buffer.firstNumber === null && size < COUNTED_BYTES) this.countLines();
    });
  }

  /** Read more before what is in memory (direction -1) or after it (1). */
  extend(direction) {
    const { buffer, tasks } = this;
    if (tasks.view || (direction < 0 ? buffer.start === 0 : buffer.end >= this.size)) return;
    this.run("view", async (signal) => {
      const from = direction < 0 ? Math.max(0, buffer.start - CHUNK_BYTES) : buffer.end;
      const { start, bytes } = await readRange(this.id, from, direction < 0 ? buffer.start : from + CHUNK_BYTES, signal);
      if (direction < 0) buffer.prepend(bytes.subarray(start && (bytes.indexOf(10) + 1) % bytes.length));
      else this.append(bytes.subarray(buffer.end - from));
      if (direction < 0) buffer.trimEnd();
      else buffer.trimStart();
      this.numberLines();
    });
  }

  /** Show a line by its number: the log is counted up to it. Of a shorter log, show the end. */
  goToLine(number) {
    return this.run("count", async (signal) => {
      await this.count(() => this.index.numbers.at(-1) > number, signal);
      if (!(await this.load(this.index.beforeNumber(number).offset))) return;
      const { buffer } = this;
      const line = buffer.line(Math.min(number - buffer.firstNumber, buffer.lineCount - 1));
      this.setAnchor(line.number === number ? line.offset : null);
    });
  }

  /** Count the lines before those in memory, so that these have numbers. */
  countLines() {
    return this.run("count", (signal) => this.count(() => this.index.offsets.at(-1) >= this.buffer.start, signal));
  }

  async count(isEnough, signal) {
    if (isEnough()) return;
    for await (const block of readBlocks(this.id, this.index.offsets.at(-1), Infinity, signal)) {
      this.index.add(block);
      this.numberLines();
      if (isEnough()) return;
    }
  }

  numberLines() {
    const { buffer, index } = this;
    const { offset, number } = index.beforeOffset(buffer.end);
    if (buffer.firstNumber === null && offset >= buffer.start) buffer.setNumber(offset, number);
    this.onChange();
  }

  /** Search what is in memory for a text; without one, end the search. */
  setQuery(query) {
    this.tasks.search?.abort();
    this.search = query ? new LogSearch(query, this.buffer.start) : null;
    this.search?.addAfter(this.buffer.bytes);
    this.onChange();
  }

  /** Show the nearest line that contains the text, further back (direction -1) or forward (1) in the log. */
  find(direction) {
    const { search } = this;
    const from = search.current ?? (direction < 0 ? this.lastVisible + 1 : (this.anchor?.offset ?? Infinity));
    return this.run("search", async (signal) => {
      for (let [length, most] = SEARCH_BYTES; ; length = Math.min(length * 4, most)) {
        const line = search.nearest(from, direction);
        if (line !== undefined) return this.goToOffset((search.current = line));
        if (!(await this.searchMore(direction, length, signal))) return;
      }
    });
  }

  /** Search further in a direction. Returns whether there was more of the log. */
  async searchMore(direction, length, signal) {
    const { search } = this;
    const from = direction < 0 ? Math.max(0, search.from - length) : search.to;
    const to = direction < 0 ? search.from : Math.min(this.size, search.to + length);
    let part = direction < 0 ? null : search;
    for await (const { start, bytes } of from < to ? readBlocks(this.id, from, to, signal) : []) {
      part ??= new LogSearch(search.query, start);
      part.addAfter(bytes);
      this.onChange();
    }
    if (direction < 0) search.addBefore(part ?? { from, lines: [] });
    return from < (direction < 0 ? to : search.to);
  }
}
