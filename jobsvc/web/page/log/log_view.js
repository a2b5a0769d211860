/** The window over a log: only the rows that can be seen are elements. */

import { html, useEffect, useLayoutEffect, useMemo, useRef, useState } from "../html.js";
import { isNamed } from "./log_lines.js";
import { countRows, LogRow } from "./log_row.js";

const ROW = 18; // height in pixels, as in log.css
const OVERSCAN = 15; // rows above and below the window
const MAX_HEIGHT = 8_000_000; // Firefox shows no more than 17,800,000 pixels
const JUMP_DELAY_MS = 120; // after the last movement of the scroll bar

export function LogView({ model, isWrapped, selected, onSelect }) {
  const { start, bytes, end, lines, size, anchor, search } = model;
  const scroller = useRef();
  const [, render] = useState();
  const { clientHeight: height = 800, clientWidth: width = 800, firstElementChild: probe } = scroller.current ?? {};
  const digits = Math.max(4, String(lines.at(-1)?.number ?? "").length);
  const columns = isWrapped ? Math.max(20, Math.floor((width - 33) / (probe.offsetWidth / 10)) - digits) : Infinity; // 33: the paddings
  const rows = useMemo(() => layOut(lines, columns), [lines, columns]);

  // What is not in memory has space in proportion to its size.
  const perByte = Math.min((rows * ROW) / bytes.length || 0, MAX_HEIGHT / size || 0);
  const [above, below] = [start * perByte, start * perByte + rows * ROW];
  const total = below + (size - end) * perByte;
  const lineAt = (test) => lines.findLast(test) ?? lines[0];
  const topOf = ({ offset, number, rows: hidden }) => {
    if (offset < start || !lines.length) return offset * perByte;
    if (offset > end) return below + (offset - end) * perByte;
    return above + (lineAt((line) => (number ? line.number <= number : line.offset <= offset)).row + hidden) * ROW;
  };
  const top = Math.max(0, Math.min(anchor ? topOf(anchor) : total, total - height));
  const [first, last] = [top - above, top - above + height].map((pixels) => pixels / ROW);
  const shown = lines.filter((line) => line.row + line.rows > first - OVERSCAN && line.row < last + OVERSCAN);
  model.bottom = shown.findLast((line) => line.row < last)?.offset;

  useEffect(() => {
    const observer = new ResizeObserver(render);
    observer.observe(scroller.current);
    return () => observer.disconnect();
  }, []);
  useLayoutEffect(() => {
    if (Math.abs(scroller.current.scrollTop - top) >= 1) scroller.current.scrollTop = top;
  });
  const scroll = () => {
    const position = scroller.current.scrollTop;
    if (Math.abs(position - top) < 1 || !lines.length) return;
    const row = (position - above) / ROW;
    const line = lineAt((each) => each.row <= row);
    if (position + height < above) model.moveTo({ offset: Math.floor(position / perByte), rows: 0 }, JUMP_DELAY_MS);
    else if (position > below) model.moveTo({ offset: Math.floor(end + (position - below) / perByte), rows: 0 }, JUMP_DELAY_MS);
    else if (end === size && position + height > total - ROW / 2) model.moveTo(null);
    else model.moveTo({ offset: line.offset, rows: row - line.row });
  };

  const row = (line) => html`<${LogRow} key=${line.offset} line=${line} height=${line.rows * ROW} query=${search?.query}
    isSelected=${isNamed(selected, line)} isCurrent=${search?.current === line.offset} onSelect=${onSelect} />`;
  return html`<div class="log-view ${isWrapped ? "wrapped" : ""}" ref=${scroller} onScroll=${scroll} tabindex="0"
    role="region" aria-label="Log" style=${{ "--digits": digits }}>
    <span class="log-probe" aria-hidden="true">0000000000</span>
    <div class="log-rows" style=${{ height: `${total}px`, paddingTop: `${above + (shown[0]?.row ?? 0) * ROW}px` }}>${shown.map(row)}</div>
  </div>`;
}

/** Tell lines in which row they begin, and how many they take. Returns how many rows there are. */
function layOut(lines, columns) {
  let row = 0;
  for (const line of lines) {
    Object.assign(line, { row, rows: countRows(line.bytes, columns) });
    row += line.rows;
  }
  return row;
}
