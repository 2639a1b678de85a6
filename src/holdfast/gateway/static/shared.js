// What more than one page needs.

/** Times in the reader's own zone; today's without the day. */
export function localTimes(root) {
  for (const time of root.querySelectorAll("time[datetime]")) {
    const at = new Date(time.dateTime);
    if (Number.isNaN(at.getTime())) continue;
    const clock = at.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
    const isToday = at.toDateString() === new Date().toDateString();
    const day = at.toLocaleDateString([], { year: "numeric", month: "short", day: "numeric" });
    time.textContent = isToday ? clock : `${day}, ${clock}`;
    time.title = at.toLocaleString();
  }
}

/** HTML that our own templates made, as nodes.  Everything in it is escaped there. */
export function nodesOf(html) {
  const template = document.createElement("template");
  template.innerHTML = html;
  localTimes(template.content);
  return template.content;
}

export const pause = (ms) => new Promise((done) => setTimeout(done, ms));
