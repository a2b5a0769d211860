/** The page of a job's log. */

import { jobUrl } from "../api.js";
import { copyText } from "../copy_button.js";
import { formatSize } from "../format.js";
import { html, useEffect, useRef, useState } from "../html.js";
import { followLink, navigate, routeUrl } from "../router.js";
import { StateLabel } from "../state_label.js";
import { lineText } from "./line_text.js";
import { LogModel, parseFragment } from "./log_model.js";
import { LogView } from "./log_view.js";
import { SearchBar } from "./search_bar.js";

const CONNECTIONS = { connecting: "Connecting", live: "Live", lost: "Not live, trying again", ended: "Complete" };

export function LogPage({ route }) {
  const model = useLogModel(route);
  const [isWrapped, setWrapped] = useState(() => localStorage.getItem("wrap") === "1");
  const wrap = () => {
    localStorage.setItem("wrap", isWrapped ? "0" : "1");
    setWrapped(!isWrapped);
  };
  const selected = parseFragment(route.fragment);
  useKeys({ w: wrap, g: () => model.goToOffset(0), G: () => model.goToOffset(null) });
  const select = (event, unit) => {
    event.preventDefault();
    const from = event.shiftKey && selected?.unit === unit[0] ? `${selected.unit}${selected.from}-` : "";
    navigate(routeUrl({ job: route.id, view: "log" }, from + unit), { replace: true });
  };
  return html`<main class="log-page">
    <div class="log-bar toolbar">
      <h1><a href=${routeUrl({ job: route.id })} onClick=${followLink}><bdi>${route.id}</bdi></a> log</h1>
      ${model.status && html`<${StateLabel} status=${model.status} />`}
      <${SearchBar} model=${model} />
      <button aria-pressed=${isWrapped} onClick=${wrap}>Wrap</button>
      <${CopyButton} model=${model} selected=${selected} />
      <a class="button" href=${jobUrl(route.id, "logs")} download="${route.id}.log">Download</a>
    </div>
    <${Notice} model=${model} />
    <${LogView} model=${model} isWrapped=${isWrapped} selected=${selected} onSelect=${select} />
    <${StatusLine} model=${model} />
  </main>`;
}

/** Return the model of a log. The component is rendered again when it changes, once a frame at most. */
function useLogModel({ id, fragment }) {
  const [, render] = useState(0);
  const model = useRef();
  const isFirst = !model.current;
  if (isFirst) model.current = new LogModel(id, onceAFrame(() => render((count) => count + 1)));
  useEffect(() => {
    model.current.start(fragment);
    return () => model.current.stop();
  }, []);
  useEffect(() => {
    if (model.current.state === "ready") model.current.goTo(fragment);
  }, [fragment]);
  return model.current;
}

function onceAFrame(action) {
  let frame = 0;
  return () => {
    frame ||= requestAnimationFrame(() => {
      frame = 0;
      action();
    });
  };
}

/** Call a function when its key is pressed outside a field. */
function useKeys(actions) {
  useEffect(() => {
    const listener = (event) => {
      if (event.target.matches("input, textarea, select") || event.ctrlKey || event.metaKey || event.altKey) return;
      if (actions[event.key]) actions[event.key]();
    };
    addEventListener("keydown", listener);
    return () => removeEventListener("keydown", listener);
  });
}

function Notice({ model: { error, state, connection } }) {
  if (error) return html`<p class="notice error" role="alert">${error.message}</p>`;
  if (state !== "missing") return null;
  return html`<p class="notice" role="status">${
    connection === "ended" ? "This job has no log." : "This job has no log yet. It appears here as soon as it is written."
  }</p>`;
}

function CopyButton({ model, selected }) {
  const [message, setMessage] = useState("");
  const copy = async () => {
    const lines = linesToCopy(model.buffer, selected);
    setMessage((await copyText(lines.join("\n"))) ? `${lines.length} lines copied` : "The browser does not allow copying");
    setTimeout(() => setMessage(""), 3000);
  };
  return html`<button onClick=${copy} title="The selected lines, otherwise those in memory">Copy</button>
    <span role="status" class="muted small">${message}</span>`;
}

/** Return the texts of the selected lines, or of all lines in memory. */
function linesToCopy(buffer, selected) {
  const texts = [];
  for (let index = 0; index < buffer.lineCount; index += 1) {
    const { number, offset, bytes } = buffer.line(index);
    const position = selected?.unit === "L" ? number : offset;
    if (!selected || (position >= selected.from && position <= selected.to)) texts.push(lineText(bytes));
  }
  return texts;
}

function StatusLine({ model }) {
  const { buffer, size, index, tasks, newLines, anchor } = model;
  const isCounting = tasks.count && index.reached < size;
  return html`<div class="log-status small muted">
    <span class="connection ${model.connection}">${CONNECTIONS[model.connection]}</span>
    <span class="number">${formatSize(size)}</span>
    ${isCounting && html`<span class="number">Counting lines: ${Math.floor((index.reached / size) * 100)} %</span>`}
    ${!isCounting && buffer.lineCount > 0 && buffer.firstNumber === null && html`<span>
      Too large to count: links name the byte, not the line.
      <button class="quiet" onClick=${() => model.countLines()}>Count lines</button>
    </span>`}
    ${anchor && html`<button class="new-lines" onClick=${() => model.goToOffset(null)}>
      ${newLines ? `${newLines.toLocaleString()} new ${newLines === 1 ? "line" : "lines"}` : "To the end"} ↓
    </button>`}
  </div>`;
}
