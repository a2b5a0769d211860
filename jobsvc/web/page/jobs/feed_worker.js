/** A SharedWorker: all tabs of a browser share one event stream. */

import { FeedSource } from "./feed_source.js";

const source = new FeedSource();

addEventListener("connect", ({ ports: [port] }) => {
  const receive = (message) => port.postMessage(message);
  port.onmessage = ({ data }) => source.handle(receive, data);
});
