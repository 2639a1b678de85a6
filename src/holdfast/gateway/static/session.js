// One conversation.
//
//   #log      the transcript, in its order; only the server adds to it, so all tabs agree
//   #running  the turn that is being answered: void as soon as its entries are in the log
//   #waiting  the queue
//
// Everything comes over one stream (see _console_live.py for its events).  `after` is the
// cursor of the last entry that was seen; whoever comes back with it misses nothing.

import { localTimes, nodesOf, pause } from "./shared.js";

const $ = (id) => document.getElementById(id);
const page = $("session"), log = $("log"), running = $("running"), waiting = $("waiting");
const box = $("box"), text = $("text"), said = $("said"), link = $("link");
const key = page.dataset.key;
let after = page.dataset.after;

// ------------------------------------------------------------------------------ what is shown

/** Do *change*, and stay at the end of the page if the reader was there. */
function show(change) {
  const wasAtEnd = atEnd();
  change();
  $("empty").hidden = Boolean(log.firstElementChild || running.firstElementChild || waiting.firstElementChild);
  if (wasAtEnd) toEnd();
  else $("newest").hidden = false;
}

const room = document.scrollingElement;
const atEnd = () => room.scrollHeight - room.scrollTop - room.clientHeight < 80;
function toEnd() {
  room.scrollTop = room.scrollHeight;
  $("newest").hidden = true;
}

/** The entry in the log that says *what* of a turn: data-ends, or data-kind=question. */
const inLog = (turn, what) => log.querySelector(`[data-turn="${CSS.escape(turn)}"][${what}]:not([data-mark])`);
const turnNow = () => running.querySelector("[data-turn]")?.dataset.turn;

/** The block of the running turn shows nothing that the log shows already. */
function settle() {
  const turn = turnNow();
  if (!turn) return;
  if (inLog(turn, "data-ends")) return running.replaceChildren();
  running.querySelector('[data-part="question"]').hidden = Boolean(inLog(turn, 'data-kind="question"'));
}

/** Put nodes in, and keep the focus on a Cancel button that was there before. */
function replace(root, nodes) {
  const focused = root.contains(document.activeElement) && document.activeElement.dataset.cancel;
  root.replaceChildren(nodes);
  if (focused) (root.querySelector(`[data-cancel="${CSS.escape(focused)}"]`) ?? text).focus();
}

function speak(tag, name, words) {
  const part = document.createElement(tag);
  part.className = name;
  part.textContent = words;
  running.querySelector('[data-part="said"]').append(part);
  return part;
}

const happens = {
  entry({ html }, event) {
    const nodes = nodesOf(html);
    // Told again from the start: somebody has rewritten the transcript.
    if (document.getElementById(nodes.firstElementChild.id)) return location.reload();
    after = event.lastEventId;
    log.append(nodes);
    const turn = log.lastElementChild.dataset.turn;
    if (turn && turn === turnNow() && log.lastElementChild.dataset.kind !== "question") {
      running.querySelector('[data-part="said"]').replaceChildren();
    }
    settle();
  },
  again({ html }) {
    const nodes = nodesOf(html);
    document.getElementById(nodes.firstElementChild.id)?.replaceWith(nodes);
  },
  running({ html }) {
    replace(running, nodesOf(html));
    settle();
  },
  text({ turn_id, text }) {
    if (turn_id !== turnNow()) return;
    const parts = running.querySelector('[data-part="said"]');
    const last = parts.lastElementChild;
    // A text node a piece: nothing that is said is ever read as HTML.
    if (last?.classList.contains("text")) last.append(text);
    else speak("div", "text", text).dir = "auto";
  },
  attempt({ turn_id, n, reason }) {
    if (turn_id !== turnNow()) return;
    running.querySelector('[data-part="said"]').replaceChildren();
    speak("p", "hint", `Attempt ${n}: the one before came to nothing (${reason}).`);
  },
  tool({ turn_id, name, call_id, state }) {
    if (turn_id !== turnNow()) return;
    const known = running.querySelector(`[data-call="${CSS.escape(call_id)}"]`);
    const line = known ?? speak("p", "call", "");
    line.dataset.call = call_id;
    line.textContent = `${name} ${state === "started" ? "is at work…" : state}`;
    line.classList.toggle("bad", state === "failed" || state === "interrupted");
  },
  idle() {
    replace(running, "");
  },
  ended({ html }) {
    const nodes = nodesOf(html);
    if (!inLog(nodes.firstElementChild.dataset.turn, "data-ends")) log.append(nodes);
  },
  waiting({ html }) {
    replace(waiting, nodesOf(html));
  },
};

// ------------------------------------------------------------------------------- the connection

const RETRY_FIRST_MS = 300, RETRY_MAX_MS = 5000;
let source = null;
let retryMs = RETRY_FIRST_MS;
let isUp = null; // Not known yet.
let cameUp;
let up = new Promise((resolve) => (cameUp = resolve)); // Resolved while the stream is open.

function setUp(now) {
  if (now === isUp) return;
  if (isUp) up = new Promise((resolve) => (cameUp = resolve));
  isUp = now;
  link.dataset.is = page.dataset.is = now ? "up" : "down";
  $("send").disabled = !now;
  link.textContent = now ? "live" : "the server does not answer; trying again";
  if (now) cameUp();
}

function connect() {
  source?.close();
  const mine = (source = new EventSource(`/sessions/${key}/live?after=${encodeURIComponent(after)}`));
  source.onopen = () => {
    retryMs = RETRY_FIRST_MS;
    // What runs and what waits is told anew; if nothing does, nothing is said of it.
    show(() => (replace(running, ""), replace(waiting, "")));
    setUp(true);
  };
  source.onerror = () => reconnect(mine);
  for (const [kind, happen] of Object.entries(happens)) {
    source.addEventListener(kind, (event) => show(() => happen(JSON.parse(event.data), event)));
  }
}

/** In place of *lost*, unless something else has taken its place already. */
async function reconnect(lost) {
  lost.close();
  setUp(false);
  await pause(retryMs);
  retryMs = Math.min(2 * retryMs, RETRY_MAX_MS);
  if (source !== lost || document.hidden) return; // It connects when it is looked at.
  // A stream does not say why it was refused; a request does.
  const answer = await fetch(`/sessions/${key}/live`, { method: "HEAD" }).catch(() => null);
  if (answer?.status === 401) return location.reload();
  if (source === lost) answer?.ok ? connect() : reconnect(lost);
}

// A browser keeps six connections to a server.  A tab that nobody sees gives its own back.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) source.close();
  else if (source.readyState === EventSource.CLOSED) connect();
});

// ----------------------------------------------------------------------------------- sending

// The draft outlives a reload, and so does its id: a message is sent once, however often it is
// tried.  A changed text is another message.
const DRAFT = `draft of ${key}`;
let draft = JSON.parse(sessionStorage.getItem(DRAFT) ?? "null") ?? { text: "", id: "" };
let sending = false;

function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16)); // randomUUID needs https.
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function keep(words, isGoing = false) {
  draft = { text: words, id: words === draft.text && draft.id ? draft.id : newId(), isGoing };
  try {
    sessionStorage.setItem(DRAFT, JSON.stringify(draft));
  } catch {} // Too long to be stored: it is still in the box.
}

function grow() {
  text.style.height = "auto"; // Through the object model, which the policy allows.
  text.style.height = `${text.scrollHeight + 2}px`;
}

async function post(path, body) {
  const answer = await fetch(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body ?? {}),
  });
  if (answer.status === 401) location.reload();
  return answer;
}

/** Whether the server has it; tries until it says yes or no. */
async function deliver() {
  for (;;) {
    await up;
    try {
      const { text, id } = draft;
      const message = { text, source: "console", idempotency_key: id };
      const answer = await post(`/v1/sessions/${key}/messages`, message);
      if (answer.ok) return true;
      const problem = await answer.json();
      if (![502, 503, 504].includes(answer.status)) {
        said.textContent = [problem.detail, problem.hint].filter(Boolean).join(" — ");
        return false;
      }
      said.textContent = `Not sent yet: ${problem.detail}. It is tried again.`;
    } catch {
      said.textContent = "Not sent yet: the server does not answer. It is tried again.";
    }
    await pause(1000);
  }
}

async function send() {
  if (sending || !text.value.trim()) return;
  if (isUp === false) {
    said.textContent = "The server does not answer. Your message stays here; send it when it is back.";
    return;
  }
  keep(text.value, true);
  sending = text.readOnly = true;
  box.dataset.sending = "";
  said.textContent = "";
  toEnd();
  try {
    if (await deliver()) {
      text.value = said.textContent = "";
      grow();
    }
  } finally {
    keep(text.value);
    sending = text.readOnly = false;
    delete box.dataset.sending;
    text.focus();
  }
}

box.addEventListener("submit", (event) => (event.preventDefault(), send()));
text.addEventListener("input", () => (keep(text.value), grow()));
text.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  send();
});
document.addEventListener("click", async (event) => {
  const turn = event.target.dataset?.cancel;
  if (!turn) return;
  event.target.disabled = true;
  event.target.textContent = "Cancelling…";
  const answer = await post(`/v1/turns/${turn}/cancel`).catch(() => null);
  if (!answer?.ok) [event.target.disabled, event.target.textContent] = [false, "Cancel"];
});
$("newest").addEventListener("click", () => (toEnd(), text.focus()));
document.addEventListener("scroll", () => atEnd() && ($("newest").hidden = true), { passive: true });

// ----------------------------------------------------------------------------------- the start

localTimes(log);
// Whoever was quicker than this script keeps what they have typed.
const early = text.value === draft.text ? "" : text.value;
if (early && !draft.isGoing) keep(early);
text.value = draft.text;
grow();
show(() => {});
if (!location.hash) toEnd();
connect();
if (draft.isGoing) {
  await send(); // The page was left before the server had answered.
  if (early) {
    text.value = [text.value, early].filter(Boolean).join("\n");
    keep(text.value);
    grow();
  }
}
