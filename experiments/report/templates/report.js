"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const state = { visible: data.runs.map((_, at) => at), one: -1, two: -1 };
  const HEAT = ["#d5dbe1", "#f2c879", "#e8853a", "#b8322a", "#5e0a2f"];
  const tip = byId("tip");

  // Elements and words ------------------------------------------------------------------------

  function make(name, attributes = {}, text = "") {
    const spaces = { svg: 1, g: 1, line: 1, path: 1, rect: 1, circle: 1, text: 1, title: 1, desc: 1, polyline: 1, polygon: 1 };
    const node = spaces[name] ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (text !== "") node.textContent = text;
    return node;
  }

  function number(value) {
    if (value === null || value === undefined) return "\u2013";
    return Math.abs(value) >= 10000 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(4)));
  }

  function nameOf(run) {
    return [run.policy, run.cell, run.seed && `seed ${run.seed}`].filter(Boolean).join(", ");
  }

  function oneLine(words) {
    return words.replaceAll(":\n", ": ").replaceAll("\n", ", ");
  }

  function showTip(text, x, y) {
    tip.textContent = text;
    tip.hidden = false;
    const width = Math.min(300, tip.offsetWidth);
    const left = Math.min(x + 14, document.documentElement.clientWidth - width - 10);
    tip.style.left = `${window.scrollX + Math.max(4, left)}px`;
    tip.style.top = `${window.scrollY + y + 16}px`;
  }

  function hideTip() {
    tip.hidden = true;
  }

  // What can be pointed at: one stop for Tab, arrow keys go on; `words` says what each item is.
  function interactive(holder, items, words, choose) {
    let at = 0;
    const tell = (item, x, y) => showTip(words(item), x, y);
    const focus = (index) => {
      items[at].setAttribute("tabindex", "-1");
      at = (index + items.length) % items.length;
      items[at].setAttribute("tabindex", "0");
      items[at].focus();
    };
    items.forEach((item, index) => {
      item.classList.add("item");
      item.setAttribute("tabindex", index ? "-1" : "0");
      item.setAttribute("role", choose ? "button" : "img");
      item.setAttribute("aria-label", oneLine(words(item)));
      item.addEventListener("pointerenter", (event) => { item.classList.add("at"); tell(item, event.clientX, event.clientY); });
      item.addEventListener("pointermove", (event) => tell(item, event.clientX, event.clientY));
      item.addEventListener("pointerleave", () => { item.classList.remove("at"); hideTip(); });
      item.addEventListener("focus", () => { const box = item.getBoundingClientRect(); tell(item, box.right, box.bottom); });
      item.addEventListener("blur", hideTip);
      if (choose) item.addEventListener("click", () => choose(item));
      item.addEventListener("keydown", (event) => {
        const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
        if (step) focus(index + step);
        else if (event.key === "Home") focus(0);
        else if (event.key === "End") focus(items.length - 1);
        else if (event.key === "Escape") hideTip();
        else if (choose && (event.key === "Enter" || event.key === " ")) choose(item);
        else return;
        event.preventDefault();
      });
    });
    holder.setAttribute("role", "group");
  }

  function fill(select, options, chosen) {
    select.replaceChildren(...options.map(([value, text]) => make("option", { value }, text)));
    select.value = String(chosen);
  }

  function mark(shape, x, y, colour, size = 6) {
    const look = { class: "mark", fill: colour, stroke: "#1b2430", "stroke-width": 1 };
    const s = size;
    if (shape === "circle") return make("circle", { cx: x, cy: y, r: s, ...look });
    if (shape === "square") return make("rect", { x: x - s, y: y - s, width: 2 * s, height: 2 * s, ...look });
    if (shape === "triangle") return make("path", { d: `M${x} ${y - 1.2 * s}l${1.15 * s} ${2.1 * s}h${-2.3 * s}z`, ...look });
    if (shape === "diamond") return make("path", { d: `M${x} ${y - 1.35 * s}l${1.2 * s} ${1.35 * s}l${-1.2 * s} ${1.35 * s}l${-1.2 * s} ${-1.35 * s}z`, ...look });
    const a = 0.45 * s;
    return make("path", { d: `M${x - a} ${y - s}h${2 * a}v${s - a}h${s - a}v${2 * a}h${a - s}v${s - a}h${-2 * a}v${a - s}h${a - s}v${-2 * a}h${s - a}z`, ...look });
  }

  // Axes ----------------------------------------------------------------------------------------

  function ticks(low, high) {
    const span = high - low || Math.abs(high) || 1;
    const raw = span / 5;
    const ten = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map((n) => n * ten).find((n) => n >= raw);
    const from = Math.floor(low / step + 1e-9) * step;
    const found = [];
    for (let n = 0; n < 20; n += 1) {
      found.push(Number((from + n * step).toPrecision(12)));
      if (found.at(-1) >= high) break;
    }
    return found;
  }

  function axes(title, xs, ys, labels, whole) {
    const wide = Math.max(330, Math.min(860, byId("p-plot").clientWidth || 860));
    const high = wide < 500 ? 330 : 430;
    const box = { left: 68, right: wide - 16, top: 16, bottom: high - 52 };
    const xt = whole ? ticks(Math.min(...xs), Math.max(...xs)).filter((v) => v <= Math.max(...xs)) : ticks(Math.min(...xs), Math.max(...xs));
    const yt = ticks(Math.min(...ys), Math.max(...ys));
    const xEnd = whole ? Math.max(...xs) : xt.at(-1);
    const x = (v) => box.left + ((v - xt[0]) / (xEnd - xt[0] || 1)) * (box.right - box.left);
    const y = (v) => box.bottom - ((v - yt[0]) / (yt.at(-1) - yt[0] || 1)) * (box.bottom - box.top);
    const svg = make("svg", { viewBox: `0 0 ${wide} ${high}`, "aria-label": title });
    for (const v of xt) {
      svg.append(make("line", { x1: x(v), x2: x(v), y1: box.top, y2: box.bottom, stroke: "#e1e6eb" }));
      svg.append(make("text", { x: x(v), y: box.bottom + 18, "text-anchor": "middle" }, number(v)));
    }
    for (const v of yt) {
      svg.append(make("line", { x1: box.left, x2: box.right, y1: y(v), y2: y(v), stroke: "#e1e6eb" }));
      svg.append(make("text", { x: box.left - 8, y: y(v) + 4, "text-anchor": "end" }, number(v)));
    }
    svg.append(make("text", { x: (box.left + box.right) / 2, y: high - 10, "text-anchor": "middle" }, labels[0]));
    svg.append(make("text", { transform: `translate(16 ${(box.top + box.bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, labels[1]));
    return { svg, x, y };
  }

  // The table of runs ---------------------------------------------------------------------------

  const body = byId("table").tBodies[0];
  const rows = [...body.rows];

  function setUpTable() {
    [...byId("table").tHead.rows[0].cells].forEach((cell, column) => {
      if (!cell.dataset.kind) return;
      const button = make("button", { type: "button" }, cell.textContent);
      cell.replaceChildren(button);
      cell.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => sortBy(cell, column));
    });
    for (const row of rows) {
      const run = data.runs[row.dataset.run];
      if (!data.details[run.id]) continue;
      const button = make("button", { type: "button", "aria-label": `Show ${nameOf(run)} in the drawings` }, row.cells[0].textContent);
      button.addEventListener("click", () => choose(Number(row.dataset.run), true));
      row.cells[0].replaceChildren(button);
    }
    byId("filters").addEventListener("input", filter);
    byId("filters").addEventListener("submit", (event) => event.preventDefault());
    byId("filters").addEventListener("reset", () => setTimeout(filter));
  }

  function sortBy(cell, column) {
    const down = cell.getAttribute("aria-sort") === "ascending";
    for (const other of cell.parentNode.cells) if (other.dataset.kind) other.setAttribute("aria-sort", "none");
    cell.setAttribute("aria-sort", down ? "descending" : "ascending");
    const numeric = cell.dataset.kind === "number" && rows.every((row) => !Number.isNaN(Number(row.cells[column].dataset.v)));
    const value = (row) => (numeric ? row.cells[column].dataset.v : row.cells[column].textContent);
    const compare = numeric ? (a, b) => a - b : (a, b) => a.localeCompare(b, "en", { numeric: true });
    rows.sort((a, b) => {
      const [one, two] = [value(a), value(b)];
      // Absent figures stay at the end, whichever way.
      if ((one === "") !== (two === "")) return one === "" ? 1 : -1;
      return (down ? -1 : 1) * compare(one, two) || a.dataset.run - b.dataset.run;
    });
    body.append(...rows);
  }

  function filter() {
    const words = byId("f-text").value.toLowerCase().split(/\s+/).filter(Boolean);
    const policy = byId("f-policy").value;
    const cell = byId("f-cell") ? byId("f-cell").value : "";
    state.visible = [];
    for (const row of rows) {
      const run = data.runs[row.dataset.run];
      const text = `${run.id} ${row.textContent}`.toLowerCase();
      const kept = (!policy || run.policy === policy) && (!cell || run.cell === cell) && words.every((word) => text.includes(word));
      row.hidden = !kept;
      if (kept) state.visible.push(Number(row.dataset.run));
    }
    const all = data.runs.length;
    byId("count").textContent = state.visible.length === all ? `${all} runs` : `${state.visible.length} of ${all} runs`;
    drawPareto();
  }

  // Trade-off -------------------------------------------------------------------------------------

  function setUpPareto() {
    const options = data.measures.map((each, at) => [at, each.title]);
    const place = (key, other) => { const at = data.measures.findIndex((each) => each.key === key); return at < 0 ? other : at; };
    const up = place(data.metric, 0);
    fill(byId("p-y"), options, up);
    fill(byId("p-x"), options, place("hops_per_token_layer", up ? 0 : Math.min(1, options.length - 1)));
    for (const id of ["p-x", "p-y"]) byId(id).addEventListener("change", drawPareto);
    const looks = Object.entries(data.policies).map(([name, look]) => {
      const entry = make("span");
      const icon = make("svg", { viewBox: "0 0 18 14", "aria-hidden": "true" });
      icon.append(mark(look.shape, 9, 7, look.colour, 5));
      entry.append(icon, name);
      return entry;
    });
    byId("p-legend").replaceChildren(...looks);
  }

  function frontier(points, mx, my) {
    const [sx, sy] = [mx.more ? -1 : 1, my.more ? -1 : 1];
    const found = [];
    let best = Infinity;
    for (const point of [...points].sort((a, b) => sx * (a.x - b.x) || sy * (a.y - b.y))) {
      if (sy * point.y < best) { best = sy * point.y; found.push(point); }
    }
    return found;
  }

  function drawPareto() {
    const [ix, iy] = [Number(byId("p-x").value), Number(byId("p-y").value)];
    const [mx, my] = [data.measures[ix], data.measures[iy]];
    const points = state.visible
      .map((at) => ({ at, x: data.runs[at].values[ix], y: data.runs[at].values[iy] }))
      .filter((point) => point.x !== null && point.y !== null);
    if (!points.length) {
      byId("p-plot").replaceChildren(make("p", {}, "No run that the table shows has both figures."));
      return;
    }
    const title = `${my.title} against ${mx.title}, ${points.length} runs`;
    const { svg, x, y } = axes(title, points.map((p) => p.x), points.map((p) => p.y), [mx.title, my.title], false);
    const front = frontier(points, mx, my);
    svg.append(make("polyline", { points: front.map((p) => `${x(p.x)},${y(p.y)}`).join(" "), fill: "none", stroke: "#0b3c74", "stroke-width": 1.5, "stroke-dasharray": "5 3" }));
    points.sort((a, b) => a.x - b.x || a.y - b.y);
    const unbeaten = new Set(front.map((point) => point.at));
    const items = points.map((point) => {
      const look = data.policies[data.runs[point.at].policy];
      const item = make("g", { "data-run": point.at });
      item.append(mark(look.shape, x(point.x), y(point.y), look.colour));
      svg.append(item);
      return item;
    });
    interactive(svg, items, (item) => {
      const run = data.runs[item.dataset.run];
      const beaten = unbeaten.has(Number(item.dataset.run)) ? "\nno run is better in both" : "";
      return `${nameOf(run)}\n${mx.title}: ${number(run.values[ix])}\n${my.title}: ${number(run.values[iy])}${beaten}`;
    }, (item) => choose(Number(item.dataset.run), true));
    byId("p-plot").replaceChildren(svg);
  }

  // Runs that are drawn ---------------------------------------------------------------------------

  const detailed = data.runs.map((run, at) => at).filter((at) => data.details[data.runs[at].id]);

  function bestBeside(one) {
    const at = data.measures.findIndex((each) => each.key === data.metric);
    const sign = data.measures[at]?.more ? -1 : 1;
    const { cell, seed, policy } = data.runs[one];
    const same = detailed.filter((each) => data.runs[each].cell === cell && data.runs[each].seed === seed && data.runs[each].policy !== policy);
    const key = (each) => { const value = at < 0 ? null : data.runs[each].values[at]; return value === null ? Infinity : sign * value; };
    return same.sort((a, b) => key(a) - key(b))[0] ?? -1;
  }

  function setUpDetails() {
    if (!detailed.length) return;
    const first = detailed.find((at) => data.runs[at].policy === data.reference) ?? detailed[0];
    const options = detailed.map((at) => [at, `${nameOf(data.runs[at])} (${data.runs[at].id.slice(0, 8)})`]);
    state.one = first;
    state.two = bestBeside(first);
    fill(byId("c-one"), options, state.one);
    fill(byId("c-two"), [[-1, "none"], ...options], state.two);
    byId("c-one").addEventListener("change", (event) => { state.one = Number(event.target.value); drawDetails(); });
    byId("c-two").addEventListener("change", (event) => { state.two = Number(event.target.value); drawDetails(); });
    fill(byId("l-key"), Object.entries(data.layers).filter(([key]) => detailed.some((at) => data.details[data.runs[at].id].layers?.[key])), Object.keys(data.layers)[1]);
    byId("l-key").addEventListener("change", drawLayers);
    drawDetails();
  }

  function choose(run, say) {
    if (!data.details[data.runs[run].id]) {
      if (say) byId("said").textContent = "This run has no drawing.";
      return;
    }
    state.two = run;
    byId("c-two").value = String(run);
    drawDetails();
    if (say) byId("said").textContent = `Cluster and layers show ${nameOf(data.runs[run])}.`;
  }

  function drawDetails() {
    for (const row of rows) row.classList.toggle("chosen", [state.one, state.two].includes(Number(row.dataset.run)));
    drawClusters();
    drawLayers();
  }

  const shown = () => [...new Set([state.one, state.two])].filter((at) => at >= 0);

  // Clusters ----------------------------------------------------------------------------------------

  function heat(share) {
    const at = Math.max(0, Math.min(1, share)) * (HEAT.length - 1);
    const low = Math.min(Math.floor(at), HEAT.length - 2);
    const channel = (colour, from) => parseInt(colour.slice(from, from + 2), 16);
    const mix = (from) => Math.round(channel(HEAT[low], from) + (at - low) * (channel(HEAT[low + 1], from) - channel(HEAT[low], from)));
    return `rgb(${mix(1)} ${mix(3)} ${mix(5)})`;
  }

  function drawClusters() {
    const runs = shown().filter((at) => data.details[data.runs[at].id].lines);
    if (!runs.length) {
      byId("c-plots").replaceChildren(make("p", {}, "The cluster of this run cannot be told from its results."));
      byId("c-scale").replaceChildren();
      return;
    }
    const details = runs.map((at) => data.details[data.runs[at].id]);
    // One scale for both, so that they can be compared.
    const most = Math.max(...details.flatMap((each) => [each.lines.busy_ms.reduce((a, b) => Math.max(a, b), 0)])) || 1;
    const tokens = Math.max(...details.map((each) => (each.gpus ?? [0]).reduce((a, b) => Math.max(a, b), 0))) || 1;
    byId("c-plots").replaceChildren(...runs.map((at, n) => drawCluster(data.runs[at], details[n], most, tokens)));
    const bar = make("svg", { viewBox: "0 0 180 14", class: "bar", role: "img", "aria-label": "Colour scale from idle to busiest" });
    for (let n = 0; n < 60; n += 1) bar.append(make("rect", { x: 3 * n, y: 0, width: 3.2, height: 14, fill: heat(n / 59) }));
    const entry = make("span");
    entry.append("idle", bar, `lines: ${number(most)} ms of sending in the step; GPUs: ${number(tokens)} tokens`);
    byId("c-scale").replaceChildren(entry);
  }

  function ends(drawing, line) {
    const [kind, a, b] = line;
    const to = drawing.nodes[b];
    if (kind !== 1) return [drawing.nodes[a], to];
    const [x, y] = drawing.servers[a];
    return [drawing.tiers ? [x, y - drawing.box[1] / 2] : [x, y], to];
  }

  function lineWords(drawing, line, busy, sent) {
    const [kind, a, b, cables] = line;
    const what = kind === 1 ? `server ${a} \u2013 switch ${b}` : `switch ${a} \u2013 switch ${b}, ${kind === 3 ? "global" : "local"}`;
    const many = cables > 1 ? `\n${cables} cables, the busiest one:` : kind === 1 ? "\nthe busiest of its network cards:" : "";
    return `${what}${many}\n${number(busy)} ms of sending, ${number(sent)} MB`;
  }

  const asSentence = (words) => words.charAt(0).toUpperCase() + words.slice(1);

  function drawCluster(run, detail, most, tokens) {
    const drawing = data.drawings[detail.cluster];
    const [half, tall] = [drawing.box[0] / 2, drawing.box[1] / 2];
    const places = [...drawing.nodes, ...drawing.servers.flatMap(([x, y]) => [[x - half, y - tall], [x + half, y + tall]])];
    const side = (axis, pick) => places.reduce((far, place) => pick(far, place[axis]), places[0][axis]);
    const [left, right, top, bottom] = [side(0, Math.min), side(0, Math.max), side(1, Math.min), side(1, Math.max)];
    const around = drawing.lines.some((line) => line[4]);
    const pad = drawing.side * 1.2 + (around ? 0.06 : 0.02) * (right - left);
    const thin = Math.max(0.3, Math.min(1, 130 / drawing.lines.length));
    const unit = Math.max(right - left + 2 * pad, bottom - top + 2 * pad) / 560;
    const figure = make("figure");
    const busy = detail.lines.busy_ms;
    const order = drawing.lines.map((_, at) => at).sort((a, b) => busy[b] - busy[a] || a - b);
    const peak = lineWords(drawing, drawing.lines[order[0]] ?? [2, 0, 0, 1], busy[order[0]], detail.lines.megabytes[order[0]]);
    figure.append(make("figcaption", {}, `${nameOf(run)}. Busiest: ${oneLine(peak)}.${drawing.notes.length ? ` ${asSentence(drawing.notes.join("; "))}.` : ""}`));
    const svg = make("svg", {
      viewBox: `${left - pad} ${top - pad} ${right - left + 2 * pad} ${bottom - top + 2 * pad}`,
      "aria-label": `${drawing.name}, links by load, ${nameOf(run)}; busiest ${oneLine(peak)}`,
    });
    const items = new Map();
    // Busy lines lie on top.
    for (const at of [...order].reverse()) {
      const line = drawing.lines[at];
      const [[x1, y1], [x2, y2]] = ends(drawing, line);
      const share = busy[at] / most;
      const item = make("g", { "data-line": at });
      const d = line[4] ? `M${x1} ${y1}Q${(x1 + x2) / 2 + 0.12 * (y2 - y1)} ${(y1 + y2) / 2 - 0.12 * (x2 - x1)} ${x2} ${y2}` : `M${x1} ${y1}L${x2} ${y2}`;
      item.append(make("path", { d, fill: "none", stroke: "transparent", "stroke-width": 7 * unit }));
      item.append(make("path", { class: "mark line", d, fill: "none", stroke: heat(share), "stroke-width": (0.7 + 3 * share) * thin * unit }));
      svg.append(item);
      items.set(at, item);
    }
    const squares = drawServers(svg, drawing, detail, tokens, unit);
    drawSwitches(svg, drawing);
    const all = [...order.map((at) => items.get(at)), ...squares];
    if (all.length) {
      interactive(svg, all, (item) => {
        const at = item.dataset.line;
        if (at === undefined) return `GPU ${item.dataset.gpu} on server ${Math.floor(item.dataset.gpu / drawing.within.length)}\n${number(detail.gpus[item.dataset.gpu])} tokens for its experts`;
        return lineWords(drawing, drawing.lines[at], busy[at], detail.lines.megabytes[at]);
      }, null);
    }
    figure.append(svg);
    return figure;
  }

  function drawServers(svg, drawing, detail, tokens, unit) {
    const squares = [];
    const [wide, tall] = drawing.box;
    drawing.servers.forEach(([x, y], server) => {
      svg.append(make("rect", { x: x - wide / 2 + 0.1, y: y - tall / 2 + 0.1, width: wide - 0.2, height: tall - 0.2, rx: 0.3, fill: "#f7f9fa", stroke: "#7d8894", "stroke-width": 0.6 * unit }));
      if (!detail.gpus) return;
      drawing.within.forEach(([dx, dy], card) => {
        const gpu = server * drawing.within.length + card;
        const item = make("g", { "data-gpu": gpu });
        item.append(make("rect", { class: "mark", x: x + dx - 0.45, y: y + dy - 0.45, width: 0.9, height: 0.9, fill: heat(detail.gpus[gpu] / tokens) }));
        svg.append(item);
        squares.push(item);
      });
    });
    return squares;
  }

  function drawSwitches(svg, drawing) {
    const many = drawing.switches.some((count) => count > 1);
    const [wide, tall] = [drawing.side * (many ? 1.9 : 1), drawing.side * (drawing.tiers ? 0.62 : 1)];
    drawing.nodes.forEach(([x, y], at) => {
      const box = make("rect", { x: x - wide / 2, y: y - tall / 2, width: wide, height: tall, fill: "#3c4652" });
      box.append(make("title", {}, many ? `${drawing.switches[at]} switches` : `switch ${at}`));
      svg.append(box);
    });
  }

  // Layers --------------------------------------------------------------------------------------------

  function drawLayers() {
    const key = byId("l-key").value;
    const runs = shown().filter((at) => data.details[data.runs[at].id].layers?.[key]);
    if (!runs.length) {
      byId("l-plot").replaceChildren(make("p", {}, "The runs shown have no figures of layers."));
      return;
    }
    const series = runs.map((at) => data.details[data.runs[at].id].layers[key]);
    const xs = series.flatMap((values) => values.map((_, layer) => layer));
    const title = `${data.layers[key]}, layer by layer: ${runs.map((at) => nameOf(data.runs[at])).join(" and ")}`;
    const { svg, x, y } = axes(title, xs, [0, ...series.flat()], ["MoE layer", data.layers[key]], true);
    const inks = ["#6b6b6b", "#0b5394"];
    const items = [];
    series.forEach((values, n) => {
      const way = values.map((value, layer) => `${x(layer)},${y(value)}`).join(" ");
      svg.append(make("polyline", { points: way, fill: "none", stroke: inks[n], "stroke-width": 2, "stroke-dasharray": n ? "none" : "6 3" }));
    });
    series.forEach((values, n) => values.forEach((value, layer) => {
      const item = make("g", { "data-of": n, "data-layer": layer });
      item.append(mark(n ? "circle" : "square", x(layer), y(value), inks[n], 3.2));
      svg.append(item);
      items.push(item);
    }));
    interactive(svg, items, (item) => {
      const { of, layer } = item.dataset;
      return `layer ${layer}: ${number(series[of][layer])}\n${data.layers[key]}\n${nameOf(data.runs[runs[of]])}`;
    }, null);
    byId("l-plot").replaceChildren(svg);
    byId("l-legend").replaceChildren(...runs.map((at, n) => {
      const entry = make("span");
      const icon = make("svg", { viewBox: "0 0 18 14", "aria-hidden": "true" });
      icon.append(make("line", { x1: 0, x2: 18, y1: 7, y2: 7, stroke: inks[n], "stroke-width": 2, "stroke-dasharray": n ? "none" : "5 3" }), mark(n ? "circle" : "square", 9, 7, inks[n], 3.2));
      entry.append(icon, nameOf(data.runs[at]));
      return entry;
    }));
    tableOfLayers(key, runs, series);
  }

  function tableOfLayers(key, runs, series) {
    const line = (cells, name) => {
      const row = make("tr");
      row.append(...cells.map((text, at) => make(name === "th" || !at ? "th" : "td", { scope: name === "th" ? "col" : "row", class: at ? "n" : "" }, text)));
      return row;
    };
    const head = make("thead");
    head.append(line(["layer", ...runs.map((at) => `${data.layers[key]}, ${nameOf(data.runs[at])}`)], "th"));
    const rest = make("tbody");
    const most = Math.max(...series.map((values) => values.length));
    for (let layer = 0; layer < most; layer += 1) rest.append(line([String(layer), ...series.map((values) => number(values[layer]))], "td"));
    byId("l-table").replaceChildren(head, rest);
  }

  setUpTable();
  setUpPareto();
  setUpDetails();
  drawPareto();
  window.addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((each) => { each.open = true; }));
  document.body.dataset.ready = "yes";
})();
