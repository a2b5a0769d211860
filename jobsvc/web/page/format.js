/** Text for numbers and times. Pure functions. */

const SIZES = ["B", "kB", "MB", "GB", "TB"];
const DURATIONS = [["d", 86400, 2], ["h", 3600, 1], ["min", 60, 1], ["s", 1, 0]]; // seconds; days are used from 2 on

/** 1500000 bytes are "1.5 MB". */
export function formatSize(bytes) {
  let [value, unit] = [bytes, 0];
  for (; value >= 999.5 && unit < SIZES.length - 1; unit += 1) value /= 1000;
  return `${unit && value < 9.95 ? value.toFixed(1) : Math.round(value)} ${SIZES[unit]}`;
}

/** 3725 seconds are "1 h 2 min", in at most so many `units`. */
export function formatDuration(seconds, units = 2) {
  const whole = Math.max(0, Math.round(seconds));
  const index = DURATIONS.findIndex(([, size, least]) => whole >= size * least);
  const [[name, size], [smallerName, smallerSize] = []] = DURATIONS.slice(index);
  const count = Math.floor(whole / size);
  const rest = units > 1 && (count < 10 || name === "h") && Math.floor((whole % size) / smallerSize);
  return `${count} ${name}${rest ? ` ${rest} ${smallerName}` : ""}`;
}

/** How long ago a time (RFC 3339) was, at `now` in milliseconds since the epoch: "4 min ago". */
export function formatAge(time, now) {
  const seconds = (now - Date.parse(time)) / 1000;
  return seconds < 5 ? "now" : `${formatDuration(seconds, 1)} ago`;
}

/** A time (RFC 3339) as the browser writes dates, in the zone of the person who looks. */
export function formatTime(time) {
  return new Date(time).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });
}
