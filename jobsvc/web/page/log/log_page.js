/** The page of a job's log. */

import { jobUrl } from "../api.js";
import { CopyButton } from "../copy_button.js";
import { formatSize } from "../format.js";
import { html, useEffect, useRef, useState } from "../html.js";
import { useKeys } from "../keys.js";
import { followLink, navigate, routeUrl } from "../router.js";
import { StateLabel } from "../state_label.js";
import { isNamed, parseFragment } from "./line_link.js";
import { lineText } from "./line_text.js";
import { LogModel } from "./log_model.js";
import { LogView } from "./log_view.js";
import { SearchBar } from "./search_bar.js";

const CONNECTIONS = {
  connecting: "Connecting", live: "Live", lost: "Not live, trying again", ended: "Complete", gone: "Not available",
};

export function LogPage({ route: { id, fragment } }) {
  const model = useLogModel(id, fragment);
  const field = useRef();
  const [isWrapped, setWrapped] = useState(false);
  const wrap = () => setWrapped(!isWrapped);
  const selected = parseFragment(fragment);
  const select = (event, unit) => {
    event.preventDefault();
    const from = event.shiftKey && selected?.unit === unit[0] ? `${selected.unit}${selected.from}-` : "";
    navigate(routeUrl({ job: id, view: "log" }, from + unit), { replace: true });
  };
  const keys = useKeys([
    [["/"], "Search", () => field.current.select()],
    [["n"], "Previous line that was found", () => model.search && model.find(-1)],
    [["N"], "Next line that was found", () => model.search && model.find(1)],
    [["g", "Home"], "Start of the log", () => model.goToOffset(0)],
    [["G", "End"], "End of the log: follow it", () => model.goToOffset(null)],
    [["w"], "Wrap long lines", wrap],
  ]);
  return html`<main class="log-page">
    <div class="toolbar">
      <h1 class="truncate"><a href=${routeUrl({ job: id })} onClick=${followLink}><bdi>${id}</bdi></a> log</h1>
      ${model.status && html`<${StateLabel} status=${model.status} />`}
      <${SearchBar} model=${model} field=${field} />
      <button aria-pressed=${String(isWrapped)} onClick=${wrap}>Wrap</button>
      <${CopyButton} text=${() => textOf(model.buffer, selected)}>${selected ? "Copy selected" : "Copy"}<//>
      <a class="button" href=${jobUrl(id, "logs")} download="${id}.log">Download</a>
    </div>
    <${Notice} model=${model} />
    <${LogView} model=${model} isWrapped=${isWrapped} selected=${selected} onSelect=${select} />
    <${StatusLine} model=${model} />
    ${keys}
  </main>`;
}

/** Return the model of a log. The component is rendered again when it changes, once a frame at most. */
function useLogModel(id, fragment) {
  const [, render] = useState(0);
  const model = useRef();
  model.current ??= new LogModel(id, onceAFrame(() => render((count) => count + 1)));
  useEffect(() => {
    document.title = `${id} log`;
    model.current.start(fragment);
    return () => model.current.stop();
  }, []);
  useEffect(() => {
    if (model.current.state === "ready" && fragment) model.current.goTo(fragment);
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

function Notice({ model: { error, state, size, connection } }) {
  if (error) return html`<p class="notice error" role="alert">${error.message}</p>`;
  if (state === "loading" || size > 0) return null;
  const isOver = connection === "ended" || connection === "lost";
  return html`<p class="notice" role="status">
    ${isOver ? "This job has no log." : "Nothing has been logged yet. Lines appear here as they are written."}
  </p>`;
}

/** Return the text of the selected lines, or of all lines in memory. */
function textOf(buffer, selected) {
  const lines = Array.from({ length: buffer.lineCount }, (_, index) => buffer.line(index));
  return lines.filter((line) => !selected || isNamed(selected, line)).map(({ bytes }) => `${lineText(bytes)}\n`).join("");
}

function StatusLine({ model }) {
  const { buffer, size, index, tasks, newLines, anchor, connection } = model;
  const hasNumbers = buffer.firstNumber !== null || !buffer.lineCount;
  return html`<div class="log-status toolbar small muted">
    <span class="connection ${connection}" role="status">${CONNECTIONS[connection]}</span>
    <span class="number">${formatSize(size)}</span>
    ${tasks.count && html`<span class="number">Counting lines: ${Math.floor((index.offsets.at(-1) / size) * 100)} %</span>`}
    ${!tasks.count && !hasNumbers && html`<span>Too large to count at once: links name bytes.</span>
      <button class="quiet" onClick=${() => model.countLines()}>Count lines</button>`}
    ${anchor && html`<button class="new-lines" onClick=${() => model.goToOffset(null)}>
      ${newLines ? `${newLines.toLocaleString()} new ${newLines === 1 ? "line" : "lines"}` : "To the end"} ↓
    </button>`}
  </div>`;
}
