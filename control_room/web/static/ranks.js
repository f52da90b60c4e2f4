// Ranks beside each other over their last steps: a row a rank, a column some steps, the slower the darker. Who
// straggles is what the governor judged; who is slowest is what is seen here.

import { facts, h, number, plain, settle } from "./dom.js";

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const ROW = 14, LEAST_ROW = 2, MOST_HEIGHT = 280;

export function ranks(target) {
  const said = h("div", {}), figures = h("div", { class: "heats" });
  let drawn = [];
  target.append(said, figures);
  const watch = new ResizeObserver(() => drawn.forEach(paint));
  watch.observe(figures);

  function renew(told, rows) {
    const names = [...new Set(rows.map((row) => row.metric))];
    const all = [...new Set(rows.map((row) => row.rank))].sort((a, b) => a - b);
    target.hidden = all.length < 2;
    if (target.hidden) return;
    const culprit = told.conditions.find((each) => each.status === "False" && each.evidence?.straggler_rank >= 0)?.evidence.straggler_rank;
    const heats = names.map((name) => heatOf(name, rows.filter((row) => row.metric === name), all));
    settle(said, h("h2", {}, "Ranks"),
      h("p", { role: "status", class: culprit === undefined ? "soft" : "bad" }, culprit === undefined ? "no rank straggles" : `rank ${culprit} straggles: the others wait for it`),
      facts(heats.map((heat) => [plain(heat.name), `slowest rank ${heat.slowest}, ${number(heat.ratio, 3)} times the median`])));
    for (const [at, heat] of heats.entries()) {
      if (!drawn[at]) { drawn[at] = { canvas: h("canvas", { role: "img" }), caption: h("figcaption", { class: "small" }) }; figures.append(h("figure", {}, drawn[at].caption, drawn[at].canvas)); }
      Object.assign(drawn[at], { heat, all, culprit });
      drawn[at].caption.textContent = `${plain(heat.name)}: ranks ${all[0]} to ${all.at(-1)} downwards, the last steps to the right`;
      drawn[at].canvas.setAttribute("aria-label", `${plain(heat.name)} of ${all.length} ranks over the last steps: rank ${heat.slowest} is the slowest, ${number(heat.ratio, 3)} times the median`);
      paint(drawn[at]);
    }
    for (const gone of drawn.splice(heats.length)) gone.canvas.parentNode.remove();
  }

  return { renew, repaint: () => drawn.forEach(paint), end: () => watch.disconnect() };
}

const median = (values) => { const sorted = [...values].sort((a, b) => a - b); return sorted[sorted.length >> 1]; };

function heatOf(name, rows, all) {
  const middle = median(rows.map((row) => row.value)) || 1;
  const last = Math.max(...rows.map((row) => row.column));
  const means = all.map((rank) => { const own = rows.filter((row) => row.rank === rank); return own.length ? own.reduce((sum, row) => sum + row.value, 0) / own.length : 0; });
  const slowest = means.indexOf(Math.max(...means));
  return { name, rows, middle, columns: last + 1, slowest: all[slowest], ratio: means[slowest] / middle };
}

function paint({ canvas, heat, all, culprit }) {
  const width = Math.max(200, canvas.parentNode.clientWidth), tall = Math.max(LEAST_ROW, Math.min(ROW, Math.floor(MOST_HEIGHT / all.length)));
  const scale = devicePixelRatio, across = width / heat.columns, places = new Map(all.map((rank, at) => [rank, at]));
  canvas.width = width * scale; canvas.height = all.length * tall * scale;
  canvas.style.width = `${width}px`; canvas.style.height = `${all.length * tall}px`;
  const ctx = canvas.getContext("2d");
  ctx.scale(scale, scale);
  ctx.fillStyle = css("--panel"); ctx.fillRect(0, 0, width, all.length * tall);
  ctx.fillStyle = css("--hot");
  for (const { rank, column, value } of heat.rows) {
    // Half of the median is nothing, twice the median all there is: on a logarithmic scale, the median in the middle.
    ctx.globalAlpha = Math.min(1, Math.max(0.04, 0.5 + Math.log2(value / heat.middle) / 2));
    ctx.fillRect(column * across, places.get(rank) * tall, across + 0.5, tall > 4 ? tall - 1 : tall);
  }
  ctx.globalAlpha = 1;
  if (places.has(culprit)) { ctx.strokeStyle = css("--bad"); ctx.lineWidth = 2; ctx.strokeRect(1, places.get(culprit) * tall, width - 2, tall); }
}
