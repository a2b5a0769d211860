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

/** Return seconds as text in its two largest units: 3725 is "1 h 2 min". */
export function formatDuration(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  const [minutes, hours, days] = [Math.floor(whole / 60), Math.floor(whole / 3600), Math.floor(whole / 86400)];
  if (minutes < 60) return minutes < 10 && whole % 60 ? `${minutes} min ${whole % 60} s` : `${minutes} min`;
  if (hours < 48) return minutes % 60 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
  return hours % 24 && days < 10 ? `${days} d ${hours % 24} h` : `${days} d`;
}

/** Return how long ago a time (RFC 3339) was, at `now` in milliseconds since the epoch: "4 min ago". */
export function formatAge(time, now) {
  const seconds = (now - Date.parse(time)) / 1000;
  return seconds < 5 ? "now" : `${formatDuration(seconds)} ago`;
}

/** Return a time (RFC 3339) as the browser writes dates, in the zone of the person who looks. */
export function formatTime(time) {
  return new Date(time).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });
}
