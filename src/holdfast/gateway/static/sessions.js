// The list of sessions, kept fresh while somebody looks at it.

import { localTimes, pause } from "./shared.js";

const EVERY_MS = 3000;

async function refresh() {
  const answer = await fetch("/", { headers: { Accept: "text/html" } });
  if (answer.status === 401) return location.reload();
  if (!answer.ok) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const old = document.getElementById("sessions");
  const found = page.getElementById("sessions");
  localTimes(found);
  // Somebody who tabs through the list keeps their place; only what changed is replaced.
  if (!old.contains(document.activeElement) && old.innerHTML !== found.innerHTML) old.replaceWith(found);
}

localTimes(document);
for (;;) {
  await pause(EVERY_MS);
  if (!document.hidden) await refresh().catch(() => {}); // The next time will tell.
}
