"use strict";
(() => {
  const data = JSON.parse(document.getElementById("empg-data").textContent);
  const hidden = new Set(data.arms.flatMap((arm, i) => arm.hidden ? [i] : []));
  const charts = [];
  for (const button of document.querySelectorAll("button[data-arm]")) {
    const i = +button.dataset.arm;
    const show = () => button.setAttribute("aria-pressed", String(!hidden.has(i)));
    button.querySelector(".swatch").style.background = empgColour(data.arms[i].colour);
    button.addEventListener("click", () => {
      if (!hidden.delete(i)) hidden.add(i);
      dispatchEvent(new CustomEvent("empg-arms", { detail: i }));
    });
    addEventListener("empg-arms", show);
    show();
  }
  for (const host of document.querySelectorAll(".charts[data-environment]")) {
    const mine = i => data.arms[i].environment === host.dataset.environment;
    for (const metric of data.metrics) {
      if (host.dataset.metric && host.dataset.metric !== metric.key) continue;
      const style = i => ({ arm: i, colour: empgColour(data.arms[i].colour) });
      const bands = metric.arms.map((band, i) => band && mine(i) && { ...band, ...style(i), label: data.arms[i].label }).filter(Boolean);
      const lines = (metric.runs || []).filter(r => mine(r.arm)).map(r => ({ ...style(r.arm), x: r.x, y: r.y, dash: r.dash ? [4, 3] : undefined }));
      if (bands.length) charts.push(empgChart(host, metric.title, bands, lines, hidden));
    }
  }
  const redraw = () => charts.forEach(c => c.draw());
  addEventListener("empg-arms", event => charts.filter(c => c.has(event.detail)).forEach(c => c.draw()));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  let timer = 0, width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth === width) return;
    width = innerWidth; clearTimeout(timer); timer = setTimeout(redraw, 150);
  });
  const viewer = document.getElementById("viewer");
  if (viewer && data.episodes.length) empgViewer(viewer, data.episodes);
})();
