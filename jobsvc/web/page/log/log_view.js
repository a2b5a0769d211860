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
  const { clientHeight: height = 800, clientWidth, firstElementChild: probe } = scroller.current ?? {};
  const digits = Math.max(4, `${lines.at(-1)?.number ?? ""}`.length);
  const columns = isWrapped ? Math.floor((clientWidth - 33) / (probe.offsetWidth / 10)) - digits : Infinity; // 33: the paddings
  const rows = useMemo(() => layOut(lines, Math.max(20, columns)), [lines, columns]);

  // What is not in memory has space in proportion to its size.
  const perByte = Math.min((rows * ROW) / bytes.length || 0, MAX_HEIGHT / size || 0);
  const above = start * perByte;
  const below = above + rows * ROW;
  const total = below + (size - end) * perByte;
  const lineAt = (test) => lines.findLast(test) ?? lines[0];
  const topOf = ({ offset, number, rows: hidden }) => {
    if (offset < start || !lines.length) return offset * perByte;
    if (offset > end) return below + (offset - end) * perByte;
    return above + (lineAt((line) => (number ? line.number <= number : line.offset <= offset)).row + hidden) * ROW;
  };
  const top = Math.max(0, Math.min(anchor ? topOf(anchor) : total, total - height));
  const first = (top - above) / ROW;
  const last = first + height / ROW;
  const shown = lines.filter(({ row, rows: own }) => row + own > first - OVERSCAN && row < last + OVERSCAN);
  model.bottom = shown.findLast(({ row }) => row < last)?.offset ?? Infinity;

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
    const isBelow = position > below;
    if (isBelow || position + height < above) {
      const offset = Math.floor(isBelow ? end + (position - below) / perByte : position / perByte);
      return model.moveTo({ offset, rows: 0 }, JUMP_DELAY_MS);
    }
    const place = (position - above) / ROW;
    const { offset, row } = lineAt((line) => line.row <= place);
    model.moveTo(end === size && position + height > total - ROW / 2 ? null : { offset, rows: place - row });
  };

  const element = (line) => html`<${LogRow} key=${line.offset} line=${line} height=${line.rows * ROW} query=${search?.query}
    isSelected=${isNamed(selected, line)} isCurrent=${search?.current === line.offset} onSelect=${onSelect} />`;
  const space = { height: `${total}px`, paddingTop: `${above + (shown[0]?.row ?? 0) * ROW}px` };
  return html`<div class="log-view ${isWrapped ? "wrapped" : ""}" ref=${scroller} onScroll=${scroll} tabindex="0"
    role="region" aria-label="Log" style=${{ "--digits": digits }}>
    <span class="log-probe" aria-hidden="true">0000000000</span>
    <div class="log-rows" style=${space}>${shown.map(element)}</div>
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
