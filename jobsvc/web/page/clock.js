import { useEffect, useState } from "./html.js";

/** Return the time in milliseconds since the epoch, and render again every `interval` milliseconds. */
export function useNow(interval = 1000) {
  const [now, setNow] = useState(Date.now);
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now), interval);
    return () => clearInterval(timer);
  }, []);
  return now;
}
