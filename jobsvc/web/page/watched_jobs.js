/** Jobs whose end the browser reports by a notification, which browsers have on https and on this host only. */

import { html, useState } from "./html.js";
import { navigate, routeUrl } from "./router.js";
import { Icon } from "./state_label.js";

const BELL = "M8 2a4 4 0 0 0-4 4c0 3-1 4.5-2 5.5h12c-1-1-2-2.5-2-5.5a4 4 0 0 0-4-4M6.5 14h3";
const END = { completed: "is completed", failed: "has failed", canceled: "was canceled" };
const keyOf = (id) => `jobsvc.watched.${id}`; // in sessionStorage, where it is after a reload, too
let permission = globalThis.Notification?.permission; // kept, because Chromium asks another process each time

/** A button that watches an unfinished job. It asks for permission to show notifications. */
export function WatchButton({ id }) {
  const key = keyOf(id);
  const [isWatched, setWatched] = useState(() => key in sessionStorage);
  if (!isSecureContext || !globalThis.Notification) return null;
  const toggle = async () => {
    permission = await Notification.requestPermission();
    const isGranted = !isWatched && permission === "granted";
    if (isGranted) sessionStorage[key] = "";
    else delete sessionStorage[key];
    setWatched(isGranted);
  };
  const isBlocked = permission === "denied";
  const label = isBlocked ? "Notifications are blocked by the browser" : `Notify me when ${id} ends`;
  return html`<button class="quiet muted watch" aria-pressed=${String(isWatched)} aria-label=${label} title=${label}
    onClick=${toggle}><${Icon} path=${BELL} /></button>`;
}

/** Show a notification if a watched job has ended. */
export function notifyEnd({ id, status, error }) {
  if (!END[status] || !(keyOf(id) in sessionStorage)) return;
  delete sessionStorage[keyOf(id)];
  const title = `${id} ${END[status]}`;
  try {
    // All tabs show the same notification, because of its tag.
    const notification = new Notification(title, { body: error, tag: title, icon: document.querySelector("[rel=icon]").href });
    notification.onclick = () => {
      focus();
      navigate(routeUrl({ job: id }));
      notification.close();
    };
  } catch {
    // Android has only notifications of service workers.
  }
}
