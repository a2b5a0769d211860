/** What the log page shows: the part of the log in memory, where the reader is in it, and whether it is live. */

import { getJson, jobUrl } from "../api.js";
import { LineIndex } from "./line_index.js";
import { LogBuffer } from "./log_buffer.js";
import { LogSearch } from "./log_search.js";
import { followLog, readBlocks, readRange } from "./log_source.js";

const CHUNK_BYTES = 256 * 1024;
const COUNTED_BYTES = 16 * 1024 * 1024; // the lines of logs up to this size are counted without being asked to
const FIRST_SEARCH_BYTES = 1024 * 1024;
const LARGEST_SEARCH_BYTES = 64 * 1024 * 1024;
const RECONNECT_MS = 5000;

export class LogModel {
  buffer = new LogBuffer();
  index = new LineIndex();
  size = 0;
  anchor = null; // the line at the top, {offset, pixels}; null: the end, which is followed
  newLines = 0; // since the end was left
  search = null;
  state = "loading"; // "ready", "missing"
  connection = "connecting"; // "live", "lost", "ended"
  status = null; // of the job
  error = null;
  tasks = {}; // AbortControllers of what is being read, by purpose: view, count, search

  /** `onChange` is called after each change. */
  constructor(id, onChange) {
    Object.assign(this, { id, onChange });
  }

  /** Show what a fragment of the address names, and follow the log. */
  start(fragment) {
    const load = () => (this.state === "loading" ? this.goTo(fragment) : this.catchUp());
    this.source = followLog(this.id, {
      onOpen: () => load(this.set({ connection: "live" })),
      onData: (offset, bytes) => this.receive(offset, bytes),
      onReset: () => this.reset(),
      onEnd: (status) => this.end(status),
      onLost: (isClosed) => {
        this.set({ connection: "lost" });
        if (this.state === "loading") load();
        if (isClosed) this.reconnect();
      },
    });
    this.loadJob();
  }

  stop() {
    this.source.close();
    clearTimeout(this.timer);
    Object.values(this.tasks).forEach((task) => task.abort());
  }

  set(values) {
    Object.assign(this, values);
    this.onChange();
  }

  /** Run the only task of a purpose: an earlier one is stopped. */
  async run(purpose, work) {
    this.tasks[purpose]?.abort();
    const task = (this.tasks[purpose] = new AbortController());
    this.set({ error: null });
    await work(task.signal).catch((error) => {
      if (error.code === "log-missing") this.set({ state: "missing" });
      else if (!task.signal.aborted) this.set({ error });
    });
    if (this.tasks[purpose] !== task) return;
    delete this.tasks[purpose];
    this.onChange();
  }

  // Following

  async loadJob() {
    const job = await getJson(jobUrl(this.id)).catch(() => null);
    if (job) this.set({ status: job.status });
    return job;
  }

  /** The event stream was refused: it is over, or can be tried again later. */
  async reconnect() {
    const job = await this.loadJob();
    if (job?.done) this.end(job.status);
    else this.timer = setTimeout(() => this.start(""), RECONNECT_MS);
  }

  end(status) {
    this.source.close();
    this.set({ status, connection: "ended" });
    if (this.state === "ready") this.catchUp();
  }

  reset() {
    Object.assign(this, { buffer: new LogBuffer(), index: new LineIndex(), search: null, size: 0 });
    this.set({ anchor: null, newLines: 0 });
  }

  /** Take what was written. Who reads further up keeps their place: the buffer then grows, but drops nothing. */
  receive(offset, bytes) {
    const { buffer, anchor } = this;
    this.size = Math.max(this.size, offset + bytes.length);
    if (this.state === "loading") return;
    if (this.status === "queued") this.loadJob();
    const added = bytes.subarray(Math.max(0, buffer.end - offset));
    if (offset <= buffer.end && (!anchor || !buffer.isFull)) this.append(added);
    if (anchor) this.newLines += added.reduce((count, byte) => count + (byte === 10), 0);
    this.set({ state: "ready" });
    this.keepUp();
  }

  append(bytes) {
    const { buffer, search } = this;
    buffer.append(bytes);
    if (search && search.to >= buffer.start) search.addAfter(buffer.bytes.subarray(search.to - buffer.start));
    if (!this.anchor) buffer.trimStart();
  }

  /** Read what is missing at the end, as after an interruption. */
  async catchUp() {
    await this.run("size", async (signal) => {
      const { size } = await readRange(this.id, -1, 0, signal);
      if (size < this.size) this.reset();
      this.size = Math.max(size, this.size);
    });
    this.keepUp();
  }

  keepUp() {
    const behind = this.size - this.buffer.end;
    if (this.anchor || this.state !== "ready" || behind <= 0 || this.error) return;
    if (behind > 4 * CHUNK_BYTES) this.goToOffset(null);
    else this.extend(1);
  }

  // Reading

  /** Show what a fragment names: line 12 (L12), lines 12 to 20 (L12-L20), the line at an offset (B12), or the end. */
  goTo(fragment) {
    const selected = parseFragment(fragment);
    return selected?.unit === "L" ? this.goToLine(selected.from) : this.goToOffset(selected?.from ?? null);
  }

  /** Show the line at an offset; null: the end. */
  goToOffset(offset) {
    const { buffer } = this;
    const isLoaded = offset === null ? buffer.end === this.size : offset >= buffer.start && offset < buffer.end;
    if (this.state === "ready" && isLoaded) return this.setAnchor(offset);
    return this.run("view", async (signal) => {
      await this.load(offset === null ? -CHUNK_BYTES : Math.max(0, offset - CHUNK_BYTES / 2), signal);
      this.setAnchor(offset);
    });
  }

  /** Show a line by its number: the log is counted up to it. Of a shorter log, show the end. */
  goToLine(number) {
    return this.run("count", async (signal) => {
      await this.count(() => this.index.nextNumber > number, signal);
      const point = this.index.beforeLine(number);
      await this.run("view", (viewSignal) => this.load(point.offset, viewSignal));
      const { buffer } = this;
      const line = buffer.line(Math.min(number - buffer.firstNumber, buffer.lineCount - 1));
      this.setAnchor(line?.number === number ? line.offset : null);
    });
  }

  setAnchor(offset, pixels = 0) {
    this.set(offset === null ? { anchor: null, newLines: 0 } : { anchor: { offset, pixels } });
    this.keepUp();
  }

  /** Replace the buffer by the bytes at an offset; with a negative one by the end. */
  async load(from, signal) {
    const known = this.size;
    const { start, bytes, size } = await readRange(this.id, from, from + CHUNK_BYTES, signal);
    if (size < known) {
      this.reset();
      if (from > 0) return this.load(-CHUNK_BYTES, signal);
    }
    const skipped = start && start !== this.index.beforeOffset(start).offset ? bytes.indexOf(10) + 1 : 0;
    this.buffer = new LogBuffer(start + skipped);
    this.buffer.append(bytes.subarray(skipped));
    this.set({ state: "ready", size: Math.max(size, this.size) });
    this.number();
    if (this.buffer.firstNumber === null && size < COUNTED_BYTES) this.countLines();
  }

  /** Read more before the buffer (direction -1) or after it (1). */
  extend(direction) {
    const { buffer, tasks } = this;
    if (tasks.view || (direction < 0 ? buffer.start === 0 : buffer.end >= this.size)) return;
    this.run("view", async (signal) => {
      const from = direction < 0 ? Math.max(0, buffer.start - CHUNK_BYTES) : buffer.end;
      const { start, bytes } = await readRange(this.id, from, direction < 0 ? buffer.start : from + CHUNK_BYTES, signal);
      if (direction > 0) this.append(bytes.subarray(buffer.end - from));
      else buffer.prepend(bytes.subarray(start && (bytes.indexOf(10) + 1) % bytes.length));
      if (direction > 0) buffer.trimStart();
      else buffer.trimEnd();
      this.number();
    }).then(() => this.keepUp());
  }

  // Line numbers

  /** Count all lines up to the end of the buffer. */
  countLines() {
    return this.run("count", (signal) => this.count(() => this.index.reached >= this.buffer.start, signal));
  }

  async count(isEnough, signal) {
    if (isEnough()) return;
    for await (const { bytes } of readBlocks(this.id, this.index.reached, Infinity, signal)) {
      this.index.add(bytes);
      this.number();
      if (isEnough()) return;
    }
  }

  number() {
    const { buffer, index } = this;
    const { offset, number } = index.beforeOffset(buffer.end);
    if (buffer.firstNumber === null && offset >= buffer.start) buffer.setNumber(offset, number);
    this.onChange();
  }

  // Searching

  /** Search what is in memory. */
  setQuery(query) {
    this.tasks.search?.abort();
    this.search = query ? new LogSearch(query, this.buffer.start) : null;
    this.search?.addAfter(this.buffer.bytes);
    this.onChange();
  }

  /** Show the nearest line that contains the text, further back (direction -1) or forward (1) in the log. */
  find(direction) {
    const { search } = this;
    const from = search.current ?? this.anchor?.offset ?? Infinity;
    return this.run("search", async (signal) => {
      for (let bytes = FIRST_SEARCH_BYTES; ; bytes = Math.min(bytes * 4, LARGEST_SEARCH_BYTES)) {
        search.current = search.nearest(from, direction) ?? search.current;
        if (search.current !== null && search.current !== from) return this.goToOffset(search.current);
        if (!(await this.searchMore(direction, bytes, signal))) return;
      }
    });
  }

  /** Search all of the log, to tell how many lines contain the text. */
  findAll() {
    return this.run("search", async (signal) => {
      while (await this.searchMore(-1, LARGEST_SEARCH_BYTES, signal));
      while (await this.searchMore(1, LARGEST_SEARCH_BYTES, signal));
    });
  }

  /** Search the next bytes in a direction. Returns whether there were any. */
  async searchMore(direction, length, signal) {
    const { search, size } = this;
    const from = direction < 0 ? Math.max(0, search.from - length) : search.to;
    const to = direction < 0 ? search.from : Math.min(size, search.to + length);
    let part = direction > 0 ? search : null;
    for await (const { start, bytes } of from < to ? readBlocks(this.id, from, to, signal) : []) {
      part ??= new LogSearch(search.query, start);
      part.addAfter(bytes);
      this.onChange();
    }
    if (direction < 0) search.addBefore(part ?? { from, lines: [] });
    return from < to && (direction < 0 || search.to > from);
  }
}

/** Return what a fragment of the address names, `{unit, from, to}`: L for lines, B for offsets. Null: nothing. */
export function parseFragment(fragment) {
  const [, unit, from, to] = fragment.match(/^([LB])(\d{1,15})(?:-[LB]?(\d{1,15}))?$/) ?? [];
  return unit ? { unit, from: Number(from), to: Number(to ?? from) } : null;
}
