/** Text for numbers and times. Pure functions. */

const UNITS = ["B", "kB", "MB", "GB", "TB"];

/** Return a size in bytes as text: 1500000 is "1.5 MB". */
export function formatSize(bytes) {
  let value = bytes;
  let unit = 0;
  while (value >= 999.5 && unit < UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${unit && value < 9.95 ? value.toFixed(1) : Math.round(value)} ${UNITS[unit]}`;
}

const DURATIONS = [
  ["d", 86400, 2], // from two days on
  ["h", 3600, 1],
  ["min", 60, 1],
  ["s", 1, 0],
];

/** Return seconds as text in its largest units, at most `units`: 3725 is "1 h 2 min". */
export function formatDuration(seconds, units = 2) {
  const whole = Math.max(0, Math.round(seconds));
  const index = DURATIONS.findIndex(([, size, least]) => whole >= size * least);
  const [[name, size], [smallerName, smallerSize] = []] = DURATIONS.slice(index);
  const count = Math.floor(whole / size);
  const rest = units > 1 && (count < 10 || name === "h") && Math.floor((whole % size) / smallerSize);
  return rest ? `${count} ${name} ${rest} ${smallerName}` : `${count} ${name}`;
}

/** Return how long ago a time (RFC 3339) was, at `now` in milliseconds since the epoch: "4 min ago". */
export function formatAge(time, now) {
  const seconds = (now - Date.parse(time)) / 1000;
  return seconds < 5 ? "now" : `${formatDuration(seconds, 1)} ago`;
}

const TIMES = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

/** Return a time (RFC 3339) as the browser writes dates, in the zone of the person who looks. */
export function formatTime(time) {
  return TIMES.format(new Date(time));
}
