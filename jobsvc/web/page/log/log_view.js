/** The window over a log: only the rows that can be seen are elements. */

import { html, useLayoutEffect, useRef, useState } from "../html.js";
import { isNamed } from "./line_link.js";
import { layOut, lineAtTop, offsetAtTop, ROW, topOf } from "./log_layout.js";
import { LogRow } from "./log_row.js";

const OVERSCAN = 15; // rows above and below the window
const FILLED_BYTES = 1024 * 1024; // if lines are so long that less does not fill the window, more is read at once
const JUMP_DELAY_MS = 120; // after the last movement of the scroll bar

export function LogView({ model, isWrapped, selected, onSelect }) {
  const { buffer, anchor, size, search } = model;
  const scroller = useRef();
  const own = useRef({ top: 0 }); // where this component has scrolled to, and the timer of a jump
  const [box, setBox] = useState({ height: 800, width: 800, character: 8 });
  const [top, setTop] = useState(0);
  const lastNumber = (buffer.firstNumber ?? 0) + buffer.lineCount;
  const digits = Math.max(4, String(lastNumber).length);
  const columns = Math.floor((box.width - 33) / box.character) - digits; // 33: the paddings of number and text
  buffer.setColumns(isWrapped ? Math.max(20, columns) : Infinity);
  const layout = layOut(buffer, size);
  useLayoutEffect(() => observeBox(scroller.current, setBox), []);
  useLayoutEffect(() => {
    const wanted = anchor ? topOf(buffer, layout, anchor.offset) + anchor.pixels : layout.total;
    if (Math.abs(scroller.current.scrollTop - wanted) >= 1) scroller.current.scrollTop = wanted;
    own.current.top = scroller.current.scrollTop;
    setTop(own.current.top);
    if (buffer.bytes.length < FILLED_BYTES) extendNear(model, layout, box.height, own.current.top);
  }, [anchor, buffer, buffer.start, buffer.end, size, box, columns, isWrapped]);
  const scroll = () => {
    const { scrollTop } = scroller.current;
    if (Math.abs(scrollTop - own.current.top) < 1) return;
    moveTo(model, layout, box.height, scrollTop, own.current);
    setTop(scrollTop);
  };
  const [first, last] = visibleLines(buffer, layout, top, box.height);
  const rows = [];
  if (last > 0) model.lastVisible = lineAtTop(buffer, layout, top + box.height - 1).offset;
  for (let index = first; index < last; index += 1) {
    const line = buffer.line(index);
    rows.push(html`<${LogRow} key=${line.offset} line=${line} query=${search?.query ?? ""} onSelect=${onSelect}
      height=${(buffer.rowOf(index + 1) - buffer.rowOf(index)) * ROW} isSelected=${isNamed(selected, line)}
      isCurrent=${search?.current === line.offset} />`);
  }
  return html`<div class="log-view ${isWrapped ? "wrapped" : ""}" ref=${scroller} onScroll=${scroll} tabindex="0"
    role="region" aria-label="Log" style=${{ "--digits": digits, "--row": `${ROW}px` }}>
    <span class="log-probe" aria-hidden="true">0000000000</span>
    <div class="log-canvas" style=${{ height: `${layout.total}px` }}>
      <div class="log-rows" style=${{ top: `${layout.above + buffer.rowOf(first) * ROW}px` }}>${rows}</div>
    </div>
  </div>`;
}

/** Keep the size of an element's window in state: in pixels, and the width of a character of the log. */
function observeBox(element, setBox) {
  const observer = new ResizeObserver(() => {
    const character = element.firstElementChild.getBoundingClientRect().width / 10;
    setBox({ height: element.clientHeight, width: element.clientWidth, character });
  });
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
  else if (buffer.lineCount) model.set({ anchor: lineAtTop(buffer, layout, top) });
  extendNear(model, layout, height, top);
}

/** Read more if the window is near the start or the end of what is in memory. */
function extendNear(model, layout, height, top) {
  if (top < layout.above + 2 * height) model.extend(-1);
  if (top + height > layout.above + layout.rows - 2 * height) model.extend(1);
}

function visibleLines(buffer, layout, top, height) {
  const row = (top - layout.above) / ROW;
  const first = buffer.lineAtRow(row - OVERSCAN);
  return buffer.lineCount ? [first, buffer.lineAtRow(row + height / ROW + OVERSCAN) + 1] : [0, 0];
}
