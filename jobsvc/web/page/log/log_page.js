/** The page of a job's log. */

import { jobUrl } from "../api.js";
import { CopyButton } from "../copy_button.js";
import { formatSize } from "../format.js";
import { html, useEffect, useRef, useState } from "../html.js";
import { useKeys } from "../keys.js";
import { followLink, navigate, routeUrl } from "../router.js";
import { StateLabel } from "../state_label.js";
import { lineText, plainText } from "./ansi.js";
import { isNamed, parseFragment } from "./log_lines.js";
import { LogModel } from "./log_model.js";
import { LogView } from "./log_view.js";

const CONNECTIONS = {
  connecting: ["Connecting"],
  live: ["Live", "completed"],
  lost: ["Not live, trying again", "stalled"],
  ended: ["Complete"],
  gone: ["Not available"],
};

export function LogPage({ route: { id, fragment } }) {
  const model = useLogModel(id, fragment);
  const { status, lines, error } = model;
  const field = useRef();
  const [isWrapped, setWrapped] = useState(false);
  const wrap = () => setWrapped(!isWrapped);
  const selected = parseFragment(fragment);
  const select = (event, unit) => {
    event.preventDefault();
    const from = event.shiftKey && selected?.unit === unit[0] ? `${selected.unit}${selected.from}-` : "";
    navigate(routeUrl({ job: id, view: "log" }, from + unit), { replace: true });
  };
  const copied = () => {
    const chosen = lines.filter((line) => !selected || isNamed(selected, line));
    return chosen.map(({ bytes }) => `${plainText(lineText(bytes))}\n`).join("");
  };
  const keys = useKeys([
    [["/"], "Search", () => field.current.select()],
    [["n"], "Previous match", () => model.find(-1)],
    [["N"], "Next match", () => model.find(1)],
    [["g", "Home"], "Start of the log", () => model.goToOffset(0)],
    [["G", "End"], "End of the log: follow it", () => model.goToOffset(null)],
    [["w"], "Wrap long lines", wrap],
  ]);
  return html`<main class="log-page">
    <div class="toolbar">
      <h1 class="truncate"><a href=${routeUrl({ job: id })} onClick=${followLink}><bdi>${id}</bdi></a> log</h1>
      ${status && html`<${StateLabel} status=${status} />`}
      <${Search} model=${model} field=${field} />
      <button aria-pressed=${String(isWrapped)} onClick=${wrap}>Wrap</button>
      <${CopyButton} text=${copied}>${selected ? "Copy selected" : "Copy"}<//>
      <a class="button" href=${jobUrl(id, "logs")} download="${id}.log">Download</a>
    </div>
    ${error ? html`<p class="notice error" role="alert">${error.message}</p>` : html`<${Absence} model=${model} />`}
    <${LogView} model=${model} isWrapped=${isWrapped} selected=${selected} onSelect=${select} />
    <${StatusLine} model=${model} />
    ${keys}
  </main>`;
}

/** Return the model of a log. The component is rendered again when it changes, once a frame at most. */
function useLogModel(id, fragment) {
  const [, render] = useState();
  const frame = useRef();
  const [model] = useState(() => new LogModel(id, () => {
    cancelAnimationFrame(frame.current);
    frame.current = requestAnimationFrame(() => render({}));
  }));
  useEffect(() => {
    document.title = `${id} log`;
    model.follow(fragment);
    return () => model.stop();
  }, []);
  useEffect(() => {
    if (model.isLoaded && fragment) model.goTo(fragment);
  }, [fragment]);
  return model;
}

function Search({ model, field }) {
  const { search, size, end } = model;
  const press = ({ key, shiftKey }) => {
    if (key === "Escape") model.tasks.search?.abort();
    if (key === "Enter") model.find(shiftKey ? 1 : -1);
  };
  const step = (label, arrow, direction) =>
    html`<button title=${label} aria-label=${label} onClick=${() => model.find(direction)}>${arrow}</button>`;
  const result = ({ found, current, from, to }) => html`
    ${step("Previous match (Enter)", "↑", -1)}${step("Next match (Shift+Enter)", "↓", 1)}
    <span class="number small" role="status">
      ${current !== null && `${(found.indexOf(current) + 1).toLocaleString()} of `}${found.length.toLocaleString()}
      ${(from > 0 || to < end) && html`<span class="muted"> in ${formatSize(to - from)} of ${formatSize(size)}</span>`}
    </span>`;
  return html`<search class="toolbar">
    <input type="search" ref=${field} placeholder="Search" aria-label="Search the log" onKeyDown=${press}
      onInput=${({ target }) => model.setQuery(target.value)} />
    ${search && result(search)}
  </search>`;
}

function Absence({ model: { isLoaded, size, connection } }) {
  const isOver = connection === "ended" || connection === "lost";
  return isLoaded && size === 0 && html`<p class="notice" role="status">
    ${isOver ? "This job has no log." : "Nothing has been logged yet. Lines appear here as they are written."}
  </p>`;
}

function StatusLine({ model }) {
  const { size, points, tasks, newLines, anchor, connection } = model;
  const [state, color] = CONNECTIONS[connection];
  const news = newLines ? `${newLines.toLocaleString()} new ${newLines === 1 ? "line" : "lines"}` : "To the end";
  const counting = html`<span class="number">Counting lines: ${Math.floor((points.at(-1).offset / size) * 100)} %</span>`;
  const uncounted = html`<span>Too large to count at once: links name bytes.</span>
    <button class="quiet" onClick=${() => model.countLines()}>Count lines</button>`;
  return html`<div class="log-status toolbar small muted">
    <span class=${color} role="status">${state}</span>
    <span class="number">${formatSize(size)}</span>
    ${tasks.count ? counting : model.isUncounted && uncounted}
    ${anchor && html`<button class="new-lines" onClick=${() => model.goToOffset(null)}>${news} ↓</button>`}
  </div>`;
}
