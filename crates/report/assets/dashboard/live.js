// What the server tells: the runs as they are now, and who wants to know when they change.
import { ask, say } from "./dom.js";

export const store = { boot: "", version: 0, folder: "", runs: new Map(), notices: [], loaded: false, error: null, ahead: 0 };

const listeners = new Set();
let changed = new Set(), frame = 0;

// Calls back with the identifiers that changed; gives what ends it.
export function follow(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

function tell(id) {
  changed.add(id);
  // Not requestAnimationFrame: a page that is not painted must not lose what happened.
  frame ||= setTimeout(() => {
    const now = changed;
    changed = new Set();
    frame = 0;
    for (const listener of [...listeners]) listener(now);
  }, 16);
}

// Changes that come while the list is on its way wait for it: it may be older than they are.
let loading = false, stale = false, waiting = [], hello = null;

async function load() {
  stale = loading;
  if (loading) return;
  loading = true;
  try {
    const list = await ask("runs");
    const before = store.runs;
    store.runs = new Map(list.runs.map(run => [run.id, run]));
    store.boot = list.boot;
    store.version = list.version;
    store.folder = list.folder;
    store.notices = list.notices;
    store.ahead = list.now - Date.now() / 1000;
    store.loaded = true;
    store.error = null;
    for (const id of new Set([...before.keys(), ...store.runs.keys()])) tell(id);
  } catch (error) {
    store.error = error.message;
  }
  loading = false;
  const changes = waiting;
  waiting = [];
  changes.forEach(apply);
  tell("");
  if (stale || (!store.error && behind())) load();
}

// Whether something happened before the line was up, or the server began anew, and its versions with it.
function behind() {
  return hello && (hello.boot !== store.boot || hello.version > store.version);
}

function apply({ version, work }) {
  if (version <= store.version) return;
  store.version = version;
  work();
}

function status(text, name) {
  const line = document.getElementById("line");
  if (line.textContent !== text) line.textContent = text;
  line.className = `line ${name}`;
}

let stream = null, again = 0;

function connect() {
  if (stream) return;
  stream = new EventSource("/api/events");
  const on = (name, work) => stream.addEventListener(name, event => {
    const change = { version: +event.lastEventId, work: () => work(event.data) };
    if (loading) waiting.push(change); else apply(change);
  });
  stream.addEventListener("hello", event => {
    status("live", "up");
    hello = JSON.parse(event.data);
    if (!loading && (!store.loaded || behind())) load();
  });
  on("run", data => {
    const run = JSON.parse(data), before = store.runs.get(run.id);
    store.runs.set(run.id, run);
    if (!before) say(`new run: ${run.name}`);
    else if (before.state !== run.state) say(`${run.name}: ${run.state}`);
    tell(run.id);
  });
  on("gone", data => {
    const { id } = JSON.parse(data);
    store.runs.delete(id);
    tell(id);
  });
  on("notices", data => { store.notices = JSON.parse(data); tell(""); });
  stream.addEventListener("again", load);
  stream.addEventListener("error", () => {
    hello = null;
    status("not connected; trying again", "down");
    // Browsers give up on refusals; a server that was busy or restarted is asked again.
    if (stream?.readyState === EventSource.CLOSED) {
      disconnect();
      clearTimeout(again);
      again = setTimeout(() => { if (!document.hidden) connect(); }, 3000);
    }
  });
}

function disconnect() {
  stream?.close();
  stream = hello = null;
}

// A page that nobody sees holds no line: browsers allow a few lines to one server, over all tabs.
export function start() {
  load();
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) { disconnect(); status("paused", "paused"); } else connect();
  });
  addEventListener("pagehide", disconnect);
  addEventListener("pageshow", event => { if (event.persisted) connect(); });
  if (!document.hidden) connect();
}
