// Small tools of the views. Text goes into the page as text, never as markup.

export const h = globalThis.empgElement;
export const number = globalThis.empgFormat;
export const colour = globalThis.empgColour;

export const percent = v => v == null ? "–" : `${(100 * v).toFixed(1)} %`;
export const points = v => v == null ? "–" : `${v > 0 ? "+" : v < 0 ? "−" : ""}${Math.abs(100 * v).toFixed(1)}`;

// Seconds in words: 12 s, 3 min, 5 h, 2 d.
export function duration(seconds) {
  if (seconds == null || !Number.isFinite(seconds)) return "–";
  if (seconds < 90) return `${Math.max(0, Math.round(seconds))} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 129600) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} d`;
}

// The address of a view: #/run/ID/credit.
export const place = (...parts) => "#/" + parts.map(encodeURIComponent).join("/");

// Asks the server; what it refuses becomes an error in its words.
export async function ask(path, parameters, signal) {
  const query = parameters ? "?" + new URLSearchParams(parameters) : "";
  let response;
  try {
    response = await fetch(`/api/${path}${query}`, { signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("the dashboard does not answer; is it still running?");
  }
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(body.error || `the dashboard answers ${response.status}`);
  return body;
}

// Says something to those who listen instead of looking.
let saying = 0;
export function say(text) {
  clearTimeout(saying);
  const said = document.getElementById("said");
  said.textContent = "";
  saying = setTimeout(() => { said.textContent = text; }, 50);
}

// A table within a box that scrolls sideways.
export function table(caption, head, rows, attributes = {}) {
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    h("table", attributes, h("caption", { class: "unseen" }, caption), h("thead", {}, ...head), h("tbody", {}, ...rows)));
}

const SVG = "http://www.w3.org/2000/svg";
function shape(tag, attributes) {
  const node = document.createElementNS(SVG, tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
}

// A small curve of shares between 0 and 1; gaps stay gaps.
export function spark(values, label) {
  const svg = shape("svg", { class: "spark", viewBox: "0 0 96 24", preserveAspectRatio: "none", role: "img", "aria-label": label });
  const x = i => values.length < 2 ? 48 : 1 + 94 * i / (values.length - 1), y = v => 23 - 22 * Math.min(1, Math.max(0, v));
  let path = "", open = false;
  values.forEach((v, i) => {
    if (v == null) { open = false; return; }
    // A point alone is a dot.
    path += `${open ? "L" : "M"}${x(i).toFixed(1)} ${y(v).toFixed(1)}${open ? "" : "h.01"}`;
    open = true;
  });
  svg.append(shape("line", { x1: 0, x2: 96, y1: 23.5, y2: 23.5, class: "floor" }), shape("path", { d: path || "M0 0" }));
  return svg;
}

// One word with a sign before it; the sign is not the only difference.
const SIGNS = { running: "▶", stalled: "‖", finished: "✓", stopped: "■", damaged: "!" };
export const STATES = Object.keys(SIGNS);
export function state(name) {
  return h("span", { class: `state ${name}` }, h("i", { "aria-hidden": "true" }, SIGNS[name] || "?"), name);
}
