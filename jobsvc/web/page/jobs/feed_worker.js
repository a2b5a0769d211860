/** A SharedWorker: all tabs of a browser share one event stream. Its name is the id of the account. */

import { openStream } from "./job_stream.js";

const ports = new Set();
const send = (message) => ports.forEach((port) => port.postMessage(message));
let stream;

addEventListener("connect", ({ ports: [port] }) => {
  stream ??= openStream(name, send);
  ports.add(port);
  port.postMessage({ changes: stream.jobs, status: stream.status });
  port.onmessage = ({ data }) => {
    if (!ports.delete(port)) return;
    if (data.signedOut) {
      send(data);
      ports.clear();
    }
    if (ports.size > 0) return;
    stream.close();
    stream = null;
  };
});
