"use strict";
(() => {
  const data = JSON.parse(document.getElementById("empg-data").textContent);
  const host = document.getElementById("charts");
  const charts = [];
  for (const swatch of document.querySelectorAll("[data-arm]")) swatch.style.background = empgColour(+swatch.dataset.arm);
  if (host && data.metrics.length) {
    for (const metric of data.metrics) {
      const bands = metric.arms.map((band, i) => band && ({ ...band, colour: empgColour(i), label: data.arms[i].label })).filter(Boolean);
      const lines = (metric.runs || []).map(r => ({ x: r.x, y: r.y, colour: empgColour(r.arm), dash: r.dash ? [4, 3] : undefined }));
      if (bands.length) charts.push(empgChart(host, metric.title, bands, lines));
    }
    const redraw = () => charts.forEach(c => c.draw());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
    let timer = 0, width = innerWidth;
    addEventListener("resize", () => {
      if (innerWidth === width) return;
      width = innerWidth; clearTimeout(timer); timer = setTimeout(redraw, 150);
    });
  }
  const viewer = document.getElementById("viewer");
  if (viewer && data.episodes.length) empgViewer(viewer, data.episodes);
})();
