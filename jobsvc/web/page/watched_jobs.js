/** Jobs whose end the browser reports by a notification, which browsers have on https and on this host only. */

import { html, useEffect, useState } from "./html.js";
import { navigate, routeUrl } from "./router.js";
import { Icon } from "./state_label.js";

const KEY = "jobsvc.watched"; // of the tab, so that they are still known after a reload
const BELL = "M8 2a4 4 0 0 0-4 4c0 3-1 4.5-2 5.5h12c-1-1-2-2.5-2-5.5a4 4 0 0 0-4-4M6.5 14h3";
const END = { completed: "is completed", failed: "has failed", canceled: "was canceled" };

const watched = new Set(JSON.parse(globalThis.sessionStorage?.getItem(KEY) ?? "[]"));

function setWatched(id, isWatched) {
  watched[isWatched ? "add" : "delete"](id);
  sessionStorage.setItem(KEY, JSON.stringify([...watched]));
}

/** A button that watches an unfinished job. It asks for permission to show notifications. */
export function WatchButton({ id }) {
  const [isWatched, setPressed] = useState(watched.has(id));
  if (!globalThis.isSecureContext || !globalThis.Notification) return null;
  const toggle = async () => {
    const isGranted = !isWatched && (await Notification.requestPermission()) === "granted";
    setWatched(id, isGranted);
    setPressed(isGranted);
  };
  const isBlocked = Notification.permission === "denied";
  const label = isBlocked ? "Notifications are blocked by the browser" : `Notify me when ${id} ends`;
  return html`<button
    class="quiet watch"
    aria-pressed=${String(isWatched)}
    aria-label=${label}
    title=${label}
    disabled=${isBlocked}
    onClick=${toggle}
  >
    <${Icon} path=${BELL} />
  </button>`;
}

/** Show a notification for each watched job that has ended. */
export function useNotifications({ changed }) {
  useEffect(() => {
    for (const job of changed) {
      if (!watched.has(job.id) || !(job.status in END)) continue;
      setWatched(job.id, false);
      notify(job);
    }
  }, [changed]);
}

function notify({ id, status, error }) {
  const options = { body: error, icon: new URL("icon.svg", import.meta.url).href };
  try {
    // All tabs show the same notification, because of its tag.
    const notification = new Notification(`${id} ${END[status]}`, { ...options, tag: `${id} ${status}` });
    notification.onclick = () => {
      focus();
      navigate(routeUrl({ job: id }));
      notification.close();
    };
  } catch {
    // Android has only notifications of service workers.
  }
}
