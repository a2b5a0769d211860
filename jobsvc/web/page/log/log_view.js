/** The window over a log: only the rows that can be seen are elements. */

import { html, useLayoutEffect, useRef, useState } from "../html.js";
import { layOut, lineAtTop, offsetAtTop, ROW, topOf } from "./log_layout.js";
import { LogRow } from "./log_row.js";

const OVERSCAN = 15; // rows above and below the window
const JUMP_DELAY_MS = 120; // after the last movement of the scroll bar

export function LogView({ model, isWrapped, selected, onSelect }) {
  const { buffer, anchor, size, search } = model;
  const scroller = useRef();
  const own = useRef({ top: 0 }); // where this component has scrolled to, and the timer of a jump
  const [box, setBox] = useState({ height: 800, columns: 80 });
  const [top, setTop] = useState(0);
  buffer.setColumns(isWrapped ? box.columns : Infinity);
  const layout = layOut(buffer, size);
  useLayoutEffect(() => observeBox(scroller.current, setBox), []);
  useLayoutEffect(() => {
    const wanted = anchor ? topOf(buffer, layout, anchor.offset) + anchor.pixels : layout.total;
    if (Math.abs(scroller.current.scrollTop - wanted) >= 1) scroller.current.scrollTop = wanted;
    own.current.top = scroller.current.scrollTop;
    setTop(own.current.top);
  }, [anchor, buffer, buffer.start, buffer.end, size, box, isWrapped]);
  const scroll = () => {
    const { scrollTop } = scroller.current;
    if (Math.abs(scrollTop - own.current.top) < 1) return;
    moveTo(model, layout, box.height, scrollTop, own.current);
    setTop(scrollTop);
  };
  const [first, last] = visibleLines(buffer, layout, top, box.height);
  const rows = [];
  for (let index = first; index < last; index += 1) {
    const line = buffer.line(index);
    rows.push(html`<${LogRow} key=${line.offset} line=${line} query=${search?.query ?? ""} onSelect=${onSelect}
      height=${(buffer.rowOf(index + 1) - buffer.rowOf(index)) * ROW} isSelected=${isSelected(selected, line)}
      isCurrent=${search?.current === line.offset} />`);
  }
  const digits = String(buffer.line(Math.max(0, buffer.lineCount - 1)).number ?? "").length;
  return html`<div class="log-view ${isWrapped ? "wrapped" : ""}" ref=${scroller} onScroll=${scroll} tabindex="0"
    role="region" aria-label="Log" style=${{ "--digits": Math.max(3, digits), "--row": `${ROW}px` }}>
    <span class="log-probe" aria-hidden="true">0000000000</span>
    <div class="log-canvas" style=${{ height: `${layout.total}px` }}>
      <div class="log-rows" style=${{ top: `${layout.above + buffer.rowOf(first) * ROW}px` }}>${rows}</div>
    </div>
  </div>`;
}

/** Keep the size of an element's window in state, in pixels, and how many columns a wrapped line has. */
function observeBox(element, setBox) {
  const update = () => {
    const column = element.querySelector(".log-probe").getBoundingClientRect().width / 10;
    const gutter = element.querySelector(".line-number")?.getBoundingClientRect().width ?? 6 * column;
    const columns = Math.max(20, Math.floor((element.clientWidth - gutter - 24) / column));
    setBox({ height: element.clientHeight, columns });
  };
  const observer = new ResizeObserver(update);
  observer.observe(element);
  return () => observer.disconnect();
}

/** The reader has scrolled: remember the line at the top, and read what is near the window or far away. */
function moveTo(model, layout, height, top, own) {
  const { buffer, size } = model;
  const isStep = Math.abs(top - own.top) < 2 * height;
  const isOutside = top + height < layout.above || top > layout.above + layout.rows;
  clearTimeout(own.timer);
  own.top = top;
  if (isOutside && !isStep) {
    own.timer = setTimeout(() => model.goToOffset(offsetAtTop(buffer, layout, size, top)), JUMP_DELAY_MS);
    return;
  }
  const isAtEnd = buffer.end === size && top + height >= layout.total - ROW / 2;
  if (isAtEnd) model.setAnchor(null);
  else if (buffer.lineCount) model.anchor = lineAtTop(buffer, layout, top);
  if (top < layout.above + 2 * height) model.extend(-1);
  if (top + height > layout.above + layout.rows - 2 * height) model.extend(1);
}

function visibleLines(buffer, layout, top, height) {
  const row = (top - layout.above) / ROW;
  const first = buffer.lineAtRow(row - OVERSCAN);
  return buffer.lineCount ? [first, buffer.lineAtRow(row + height / ROW + OVERSCAN) + 1] : [0, 0];
}

function isSelected(selected, { number, offset }) {
  const position = selected?.unit === "L" ? number : offset;
  return selected !== null && position !== null && position >= selected.from && position <= selected.to;
}
