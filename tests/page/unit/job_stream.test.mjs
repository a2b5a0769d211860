import assert from "node:assert/strict";
import { beforeEach, mock, test } from "node:test";

import { openStream, summarize } from "../../../jobsvc/web/page/jobs/job_stream.js";

const JOB = { id: "Shot-1", status: "rendering", progress: 4, createdAt: "2026-11-22T10:00:00+09:00" };

class FakeEventSource extends EventTarget {
  static CLOSED = 2;
  readyState = 1;

  constructor(url) {
    super();
    this.url = url;
    FakeEventSource.opened.push(this);
  }

  send(type, value, lastEventId = "") {
    this.dispatchEvent(Object.assign(new Event(type), { data: JSON.stringify(value), lastEventId }));
  }

  job(id, lastEventId = "", fields = {}) {
    this.send("job", { id, status: "queued", createdAt: "2026-01-01T00:00:00Z", ...fields }, lastEventId);
  }

  close() {
    this.readyState = FakeEventSource.CLOSED;
  }
}

/** Open a stream, and collect what its receiver knows after all batches. */
function start() {
  const page = { jobs: new Map(), batches: 0, status: {}, isSignedOut: false };
  const stream = openStream("t1", ({ changes, status, signedOut }) => {
    if (signedOut) return (page.isSignedOut = true);
    page.batches += 1;
    changes.forEach((job, id) => (job ? page.jobs.set(id, job) : page.jobs.delete(id)));
    page.status = { ...status };
  });
  page.ids = () => [...page.jobs.keys()].sort();
  return { stream, page, events: FakeEventSource.opened.at(-1) };
}

/** Let the service answer requests for the account. */
function answer(status, body) {
  mock.method(globalThis, "fetch", async () => new Response(JSON.stringify(body), { status }));
}

const settle = () => new Promise(setImmediate);

beforeEach(() => {
  mock.timers.reset();
  mock.timers.enable({ apis: ["setTimeout"] });
  FakeEventSource.opened = [];
  globalThis.EventSource = FakeEventSource;
});

test("changes are passed on in batches, the last state of each job", () => {
  const { page, events } = start();
  events.job("a");
  events.job("a", "", { status: "failed" });
  events.job("b");
  assert.equal(page.batches, 0);
  mock.timers.tick(100);
  assert.equal(page.batches, 1);
  assert.deepEqual(page.ids(), ["a", "b"]);
  assert.equal(page.jobs.get("a").status, "failed");
});

test("nothing is passed on while nothing changes", () => {
  const { page, events } = start();
  events.job("a");
  events.send("present", { jobs: 1 }, "1");
  assert.deepEqual([page.batches, page.status.loaded], [1, true]);
  mock.timers.tick(1000);
  assert.equal(page.batches, 1);
});

test("all jobs so far are kept", () => {
  const { stream, events } = start();
  for (let number = 0; number < 600; number += 1) events.job(`job-${number}`);
  events.send("present", { jobs: 600 }, "1");
  assert.equal(stream.jobs.size, 600);
  assert.equal(stream.status.loaded, true);
});

test("jobs that are not among those that exist are removed", () => {
  const { page, events } = start();
  events.job("a");
  events.job("b");
  events.send("present", { jobs: 2 }, "7");
  events.job("c", "8");
  events.job("a", "9");
  events.job("b", "9"); // all jobs again, without ids: c has gone meanwhile
  events.job("d", "9");
  events.send("present", { jobs: 3 }, "12");
  assert.deepEqual(page.ids(), ["a", "b", "d"]);
});

test("a job that is removed is passed on", () => {
  const { page, events } = start();
  events.job("a");
  events.send("present", { jobs: 1 }, "1");
  events.send("removed", { id: "a" }, "2");
  mock.timers.tick(100);
  assert.deepEqual(page.ids(), []);
});

test("a lost stream is not live since then, until it is open again", async () => {
  answer(200, { id: "t1" });
  const { page, events } = start();
  events.onopen();
  assert.equal(page.status.live, true);
  events.onerror({ target: events });
  const { since } = page.status;
  assert.equal(page.status.live, false);
  await settle();
  events.onerror({ target: events });
  assert.equal(page.status.since, since);
  events.onopen();
  assert.deepEqual([page.status.live, page.status.since], [true, null]);
});

test("a stream that the service has refused is opened again after the last event", async () => {
  answer(200, { id: "t1" });
  const { events } = start();
  events.job("a");
  events.send("present", { jobs: 1 }, "epoch:7");
  events.readyState = FakeEventSource.CLOSED;
  events.onerror({ target: events });
  await settle();
  mock.timers.tick(10_000);
  const [first, second] = FakeEventSource.opened.map(({ url }) => url);
  assert.ok(first.endsWith("/api/events?lastEventId="), first);
  assert.ok(second.endsWith("/api/events?lastEventId=epoch%3A7"), second);
});

test("a stream that is closed is not opened again", async () => {
  answer(200, { id: "t1" });
  const { stream, page, events } = start();
  events.readyState = FakeEventSource.CLOSED;
  events.onerror({ target: events });
  await settle();
  stream.close();
  mock.timers.tick(10_000);
  assert.equal(FakeEventSource.opened.length, 1);
  assert.equal(page.isSignedOut, false);
});

test("an ended session is reported", async () => {
  answer(401, {});
  const { page, events } = start();
  events.onerror({ target: events });
  await settle();
  assert.equal(page.isSignedOut, true);
});

test("the session of another token counts as ended", async () => {
  answer(200, { id: "t2" });
  const { page, events } = start();
  events.onerror({ target: events });
  await settle();
  assert.equal(page.isSignedOut, true);
});

test("the newest jobs are kept of too many, and each that changes afterwards", () => {
  const { page, events } = start();
  for (let number = 0; number < 20_005; number += 1) events.job(`job-${number}`);
  events.send("present", { jobs: 20_005 }, "1");
  assert.equal(page.jobs.size, 20_000);
  assert.equal(page.status.isFull, true);
  events.job("job-20004", "2");
  mock.timers.tick(100);
  assert.equal(page.jobs.size, 20_001);
});

test("the newest jobs are kept, too, when all are sent again", () => {
  const { page, events } = start();
  for (let number = 0; number < 20_005; number += 1) events.job(`job-${number}`);
  events.send("present", { jobs: 20_005 }, "1");
  for (let number = -3; number < 20_005; number += 1) events.job(`job-${number}`, "1");
  events.send("present", { jobs: 20_008 }, "2");
  assert.equal(page.jobs.size, 20_003);
  assert.ok(page.jobs.has("job--3"));
});

test("a job without optional fields has a summary", () => {
  const { id, status, created, text } = summarize(JOB);
  assert.deepEqual({ id, status, created, text }, { id: "Shot-1", status: "rendering", created: Date.parse("2026-11-22T01:00:00Z"), text: "shot-1" });
});

test("owner, project, phase, error and metadata can be searched, in lower case", () => {
  const { text } = summarize({ ...JOB, owner: "Acme", projectPath: "P/x", phase: "Ph", error: "ERR", metadata: { artist: ["Ünal", 7] } });
  assert.equal(text, 'shot-1\nacme\np/x\nph\nerr\n{"artist":["ünal",7]}');
});

test("the size of a summary is bounded", () => {
  const long = "x".repeat(1_000_000);
  const summary = summarize({ ...JOB, phase: long, error: long, metadata: { long }, outputPath: long });
  assert.ok(JSON.stringify(summary).length < 4000);
});
