import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";

let connect;
const opened = [];
globalThis.name = "t1";
globalThis.addEventListener = (_type, listener) => {
  connect = listener;
};
globalThis.EventSource = class extends EventTarget {
  isOpen = true;

  constructor() {
    super();
    opened.push(this);
  }

  job(id) {
    const data = JSON.stringify({ id, status: "queued", createdAt: "2026-01-01T00:00:00Z" });
    this.dispatchEvent(Object.assign(new Event("job"), { data, lastEventId: "" }));
  }

  close() {
    this.isOpen = false;
  }
};
await import("../../../jobsvc/web/page/jobs/feed_worker.js");

/** A tab: the messages it has got. */
class Tab {
  messages = [];
  port = { postMessage: (message) => this.messages.push(structuredClone(message)) };

  constructor() {
    connect({ ports: [this.port] });
  }

  send(data) {
    this.port.onmessage({ data });
  }
}

let tabs;
beforeEach(() => {
  tabs?.forEach((tab) => tab.send({}));
  opened.length = 0;
  tabs = [new Tab()];
});

test("a tab that comes later gets all jobs, from the same stream", () => {
  opened[0].job("a");
  tabs.push(new Tab());
  assert.deepEqual([...tabs[1].messages[0].changes.keys()], ["a"]);
  assert.equal(opened.length, 1);
});

test("all tabs get what changes", () => {
  tabs.push(new Tab());
  opened[0].onopen();
  assert.deepEqual(tabs.map(({ messages }) => messages.at(-1).status.live), [true, true]);
});

test("the stream ends with the last tab", () => {
  tabs.push(new Tab());
  tabs[0].send({});
  assert.equal(opened[0].isOpen, true);
  tabs[1].send({});
  assert.equal(opened[0].isOpen, false);
});

test("when one tab signs out, the others hear it, and the stream ends", () => {
  tabs.push(new Tab());
  tabs[0].send({ signedOut: true });
  assert.equal(tabs[0].messages.length, 1);
  assert.deepEqual(tabs[1].messages.at(-1), { signedOut: true });
  assert.equal(opened[0].isOpen, false);
});

test("a tab can sign in again, and is not signed out by one that hears late of the end of the last session", () => {
  tabs.push(new Tab());
  tabs[0].send({ signedOut: true });
  tabs.push(new Tab());
  tabs[1].send({ signedOut: true });
  assert.equal(opened.length, 2);
  assert.equal(opened[1].isOpen, true);
  assert.equal(tabs[2].messages.length, 1);
});
