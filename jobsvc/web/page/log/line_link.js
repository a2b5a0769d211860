/** Links to lines: what the fragment of an address names. Pure functions. */

/** Return what a fragment names, `{unit, from, to}`: L for lines, B for offsets. Null: nothing. */
export function parseFragment(fragment) {
  const [, unit, from, to] = fragment?.match(/^([LB])(\d{1,15})(?:-[LB]?(\d{1,15}))?$/) ?? [];
  return unit ? { unit, from: Number(from), to: Number(to ?? from) } : null;
}

/** Return whether a line is one of those that a fragment names. */
export function isNamed(selected, { number, offset }) {
  const position = selected?.unit === "L" ? number : offset;
  return selected !== null && position !== null && position >= selected.from && position <= selected.to;
}
