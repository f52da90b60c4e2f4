// A curve over steps with the phases behind it and what was done to the run marked. uPlot draws; zoom by dragging,
// back by a double click. `shades` and `marks` are asked anew at each drawing: both grow while a run goes on.

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const PHASES = ["warmup", "stressed", "unstable", "diverged", "stalled", "recovering", "unknown"];
const finite = (value) => (typeof value === "number" && Number.isFinite(value) ? value : null);

export function columns(rows) {
  const steps = [], means = [], least = [], greatest = [];
  for (const row of rows) {
    const step = row.to_step;
    // A run that went back counts steps again: the later attempt is what counts from there on.
    while (steps.length && steps[steps.length - 1] >= step) { steps.pop(); means.pop(); least.pop(); greatest.pop(); }
    steps.push(step); means.push(finite(row.mean)); least.push(finite(row.least)); greatest.push(finite(row.greatest));
  }
  return [steps, means, least, greatest];
}

export function shadesOf(phases, last) {
  return phases.filter((each) => PHASES.includes(String(each.phase).toLowerCase()) && each.from_step !== null)
    .map((each) => ({ phase: each.phase.toLowerCase(), from: each.from_step, until: each.until_step ?? last }));
}

// The library is fetched with the first curve: the fleet needs none.
let loading = null;
function library() {
  loading ??= new Promise((done, failed) => {
    const script = document.createElement("script");
    script.src = "/static/vendor/uplot.js";
    script.onload = () => done(window.uPlot);
    script.onerror = () => { loading = null; failed(new Error("the control room does not answer")); };
    document.head.append(script);
  });
  return loading;
}

const figure = (value) => String(Number(value.toPrecision(4)));

// What a curve shows, for those who do not see it.
function inWords(title, [steps, means]) {
  const known = means.map((value, at) => [value, steps[at]]).filter(([value]) => value !== null);
  const [least, most] = [Math.min(...known.map(([value]) => value)), Math.max(...known.map(([value]) => value))];
  const [last, step] = known[known.length - 1];
  return `${title} from step ${known[0][1]} to ${step}: last ${figure(last)}, least ${figure(least)}, greatest ${figure(most)}`;
}

export async function draw(target, title, rows, shades, marks) {
  const data = columns(rows);
  const bad = rows.reduce((sum, row) => sum + row.non_finite, 0);
  const values = data[1].filter((value) => value !== null);
  if (!values.length) { target.textContent = `${title}: no finite value was logged${bad ? ` (${bad} were not finite)` : ""}`; return null; }
  const uPlot = await library();
  if (!target.isConnected || target.firstChild) return null; // the view has gone, or it was drawn meanwhile
  const logarithmic = Math.min(...values) > 0 && Math.max(...values) / Math.min(...values) > 30;
  const soft = css("--soft"), rule = css("--rule"), line = css("--c0");
  const axis = { stroke: soft, grid: { stroke: rule, width: 1 }, ticks: { stroke: rule } };
  const plot = new uPlot({
    title: `${title}${logarithmic ? " (logarithmic)" : ""}${bad ? `: ${bad} values not finite` : ""}`,
    width: Math.max(280, target.clientWidth), height: 240,
    scales: { x: { time: false }, y: logarithmic ? { distr: 3 } : {} },
    axes: [{ ...axis }, { ...axis, size: 64 }],
    series: [{ label: "step" }, { label: title, stroke: line, width: 1.5, points: { show: values.length < 60 } },
      { label: "least", stroke: "transparent", points: { show: false } }, { label: "greatest", stroke: "transparent", points: { show: false } }],
    bands: [{ series: [3, 2], fill: `${line}33` }],
    hooks: { drawClear: [(u) => shade(u, shades())], draw: [(u) => mark(u, marks())] },
  }, data, target);
  const told = target.querySelector(".u-wrap");
  told.setAttribute("role", "img");
  const tell = (known) => told.setAttribute("aria-label", inWords(title, known));
  tell(data);
  const watch = new ResizeObserver(() => plot.setSize({ width: Math.max(280, target.clientWidth), height: 240 }));
  watch.observe(target);
  return { renew: (fresh) => { const known = columns(fresh); plot.setData(known); tell(known); }, end: () => { watch.disconnect(); plot.destroy(); target.replaceChildren(); } };
}

function shade(u, shades) {
  const { ctx, bbox } = u;
  ctx.save();
  for (const each of shades) {
    const left = Math.max(bbox.left, u.valToPos(each.from, "x", true));
    const right = Math.min(bbox.left + bbox.width, u.valToPos(each.until, "x", true));
    if (right <= left) continue;
    ctx.globalAlpha = 0.5;
    ctx.fillStyle = css(`--${each.phase}`) || css("--unknown");
    ctx.fillRect(left, bbox.top, Math.max(right - left, 2), bbox.height);
  }
  ctx.restore();
}

function mark(u, marks) {
  const { ctx, bbox } = u;
  ctx.save();
  ctx.lineWidth = devicePixelRatio;
  for (const each of marks) {
    const at = u.valToPos(each.step, "x", true);
    if (at < bbox.left || at > bbox.left + bbox.width) continue;
    ctx.strokeStyle = ctx.fillStyle = css(each.kind === "intervention" ? "--c3" : each.kind === "incident" ? "--bad" : "--good");
    ctx.setLineDash(each.kind === "incident" ? [4, 4] : []);
    ctx.beginPath(); ctx.moveTo(at, bbox.top); ctx.lineTo(at, bbox.top + (each.kind === "checkpoint" ? 8 * devicePixelRatio : bbox.height)); ctx.stroke();
  }
  ctx.restore();
}
