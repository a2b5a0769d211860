import assert from "node:assert/strict";
import { beforeEach, mock, test } from "node:test";

import { FeedSource } from "../../../jobsvc/web/page/jobs/feed_source.js";

const PAGE = { base: "http://host/", account: "t1" };

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

/** A page: what it knows after all messages. */
class FakePage {
  jobs = new Map();
  messages = 0;
  receive = ({ jobs, removed, status }) => {
    this.messages += 1;
    jobs.forEach((job) => this.jobs.set(job.id, job));
    removed.forEach((id) => this.jobs.delete(id));
    this.status = status;
  };

  ids() {
    return [...this.jobs.keys()].sort();
  }
}

function start() {
  const [source, page] = [new FeedSource(), new FakePage()];
  source.handle(page.receive, PAGE);
  return { source, page, stream: FakeEventSource.opened.at(-1) };
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
  const { page, stream } = start();
  const before = page.messages;
  stream.job("a");
  stream.job("a", "", { status: "failed" });
  stream.job("b");
  assert.equal(page.messages, before);
  mock.timers.tick(100);
  assert.equal(page.messages, before + 1);
  assert.deepEqual(page.ids(), ["a", "b"]);
  assert.equal(page.jobs.get("a").status, "failed");
});

test("a page that comes later gets all jobs, from the same stream", () => {
  const { source, stream } = start();
  for (let number = 0; number < 600; number += 1) stream.job(`job-${number}`);
  stream.send("present", { jobs: 600 }, "1");
  const second = new FakePage();
  source.handle(second.receive, PAGE);
  assert.equal(second.jobs.size, 600);
  assert.equal(second.status.loaded, true);
  assert.equal(FakeEventSource.opened.length, 1);
});

test("jobs that are not among those that exist are removed", () => {
  const { page, stream } = start();
  stream.job("a");
  stream.job("b");
  stream.send("present", { jobs: 2 }, "7");
  stream.job("c", "8");
  stream.job("a", "9");
  stream.job("b", "9"); // all jobs again, without ids: c has gone meanwhile
  stream.job("d", "9");
  stream.send("present", { jobs: 3 }, "12");
  assert.deepEqual(page.ids(), ["a", "b", "d"]);
});

test("a job that is removed is passed on", () => {
  const { page, stream } = start();
  stream.job("a");
  stream.send("present", { jobs: 1 }, "1");
  stream.send("removed", { id: "a" }, "2");
  mock.timers.tick(100);
  assert.deepEqual(page.ids(), []);
});

test("the stream ends with the last page", () => {
  const { source, page, stream } = start();
  source.handle(page.receive, "close");
  assert.equal(stream.readyState, FakeEventSource.CLOSED);
});

test("a lost stream is not live since then, until it is open again", async () => {
  answer(200, { id: "t1" });
  const { page, stream } = start();
  stream.onopen();
  assert.equal(page.status.live, true);
  stream.onerror();
  const { since } = page.status;
  assert.equal(page.status.live, false);
  await settle();
  stream.onerror();
  assert.equal(page.status.since, since);
  stream.onopen();
  assert.deepEqual([page.status.live, page.status.since], [true, null]);
});

test("a stream that the service has refused is opened again after the last event", async () => {
  answer(200, { id: "t1" });
  const { stream } = start();
  stream.job("a");
  stream.send("present", { jobs: 1 }, "epoch:7");
  stream.readyState = FakeEventSource.CLOSED;
  stream.onerror();
  await settle();
  mock.timers.tick(10_000);
  assert.deepEqual(FakeEventSource.opened.map(({ url }) => url), [
    "http://host/api/events",
    "http://host/api/events?lastEventId=epoch%3A7",
  ]);
});

test("all pages are signed out when the session has ended", async () => {
  answer(401, {});
  const { page, stream } = start();
  stream.onerror();
  await settle();
  assert.equal(page.status.signedOut, true);
  assert.equal(stream.readyState, FakeEventSource.CLOSED);
});

test("all pages are signed out when the session is another token's", async () => {
  answer(200, { id: "t2" });
  const { page, stream } = start();
  stream.onerror();
  await settle();
  assert.equal(page.status.signedOut, true);
});

test("a page can sign in again after all were signed out", () => {
  const { source, page } = start();
  source.handle(page.receive, "sign-out");
  const next = new FakePage();
  source.handle(next.receive, PAGE);
  assert.equal(FakeEventSource.opened.length, 2);
  assert.equal(next.status.signedOut, undefined);
});

test("the newest jobs are kept of too many, and each that changes afterwards", () => {
  const { page, stream } = start();
  for (let number = 0; number < 20_005; number += 1) stream.job(`job-${number}`);
  stream.send("present", { jobs: 20_005 }, "1");
  assert.equal(page.jobs.size, 20_000);
  assert.equal(page.status.isFull, true);
  stream.job("job-20004", "2");
  mock.timers.tick(100);
  assert.equal(page.jobs.size, 20_001);
});
