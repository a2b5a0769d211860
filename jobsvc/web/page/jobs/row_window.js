/** Which rows of a long list are near the window. All rows have the same height, and only these are in the document. */

import { useEffect, useLayoutEffect, useState } from "../html.js";

const STEP = 4;
const SPARE = 6;
const MOST_PRINTED = 2000;

/** Return `[first, end]` of the rows to render, of `count`. `top` is the first one in the window, `rows` fit in it. */
export function rowsToRender(top, rows, count) {
  const first = Math.max(0, Math.min(top - SPARE, count - rows - 2 * SPARE));
  return [first, Math.min(count, first + rows + 2 * SPARE)];
}

/** Return `[first, end, rowHeight]` for `count` rows in the element of a ref, which scrolls with the page. */
export function useRowWindow(list, count) {
  const [view, setView] = useState([0, 50, 28]);
  const show = (...next) => setView((shown) => (next.join() === shown.join() ? shown : next));
  const measure = () => {
    if (!list.current) return; // another page is shown by now
    const rowHeight = list.current.firstElementChild?.offsetHeight || 28;
    const top = -list.current.getBoundingClientRect().top / rowHeight;
    show(Math.floor(top / STEP) * STEP, Math.ceil(innerHeight / rowHeight) + STEP, rowHeight); // not for each pixel
  };
  useLayoutEffect(measure, []);
  useEffect(() => {
    const print = () => show(0, MOST_PRINTED, view[2]);
    const listeners = { scroll: measure, resize: measure, beforeprint: print, afterprint: measure };
    const ending = new AbortController();
    for (const name in listeners) addEventListener(name, listeners[name], { passive: true, signal: ending.signal });
    return () => ending.abort();
  }, []);
  const [top, rows, rowHeight] = view;
  return [...rowsToRender(top, rows, count), rowHeight];
}
