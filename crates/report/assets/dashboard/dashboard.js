// Which view the address asks for.
import { h } from "./dom.js";
import { follow, start, store } from "./live.js";
import { list } from "./list.js";
import { comparison } from "./compare.js";
import { run } from "./run.js";

const main = document.getElementById("main");
let leave = null, shown = "";

// #/, #/compare/A/B, #/run/ID/TAB/…
function route() {
  const parts = location.hash.replace(/^#\/?/, "").split("/").filter(Boolean).map(part => {
    try { return decodeURIComponent(part); } catch { return part; }
  });
  const [name = "", ...rest] = parts;
  // A view that moves within itself is not built again.
  const key = name === "run" ? `run/${rest[0]}/${rest[1] || "curves"}` : parts.join("/");
  if (key === shown && leave) { leave.moved?.(rest); return; }
  const first = shown === "";
  shown = key || "list";
  leave?.();
  main.replaceChildren();
  const views = { "": list, compare: comparison, run };
  leave = Object.hasOwn(views, name) ? views[name](main, rest) : nowhere();
  scrollTo(0, 0);
  // The view's heading is where reading goes on.
  if (!first) (main.querySelector("h1") || main).focus();
}

function nowhere() {
  main.append(h("h1", { tabindex: "-1" }, "Nothing is here"), h("p", {}, h("a", { href: "#/" }, "The list of runs")));
  return () => {};
}

document.getElementById("skip").addEventListener("click", () => main.focus());
const folder = () => { document.getElementById("folder").textContent = store.folder; };
follow(folder);
addEventListener("hashchange", route);
route();
start();
