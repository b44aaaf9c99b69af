"use strict";
(() => {
  const data = JSON.parse(document.getElementById("report-data").textContent);
  const byId = (id) => document.getElementById(id);
  const make = (tag, text, attributes = {}) => {
    const node = document.createElement(tag);
    if (text !== undefined) node.textContent = text;
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    return node;
  };

  // ---- Map. Color repeats after eight classes, the marker changes with it, so that neither is needed alone. ----
  const PALETTE = ["#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#6a4c93", "#a6a000"];
  const NEUTRAL = "#8d96a0";
  const MARKERS = ["circle", "triangle", "square", "diamond", "cross", "down"];
  const margin = { left: 58, right: 14, top: 10, bottom: 46 };
  const canvas = byId("scatter"), tip = byId("tip"), stage = byId("stage"), context = canvas.getContext("2d");
  const state = { projection: 0, column: 0, hidden: new Set(), hover: -1, zoom: 1, panX: 0, panY: 0 };

  const column = () => data.columns[state.column];
  const projection = () => data.projections[state.projection];
  const styleOf = (code) => {
    if (code === column().neutral) return { color: NEUTRAL, marker: "circle" };
    const place = column().neutral >= 0 && code > column().neutral ? code - 1 : code;
    return { color: PALETTE[place % PALETTE.length], marker: MARKERS[Math.floor(place / PALETTE.length) % MARKERS.length] };
  };
  const isVisible = (i) => !state.hidden.has(column().codes[i]);

  function markerPath(target, marker, x, y, r) {
    target.beginPath();
    if (marker === "circle") target.arc(x, y, r, 0, 2 * Math.PI);
    else if (marker === "square") target.rect(x - r * 0.9, y - r * 0.9, 1.8 * r, 1.8 * r);
    else {
      const k = { triangle: [[0, -1.25], [1.15, 0.85], [-1.15, 0.85]], down: [[0, 1.25], [1.15, -0.85], [-1.15, -0.85]],
        diamond: [[0, -1.35], [1.15, 0], [0, 1.35], [-1.15, 0]],
        cross: [[-0.4, -1.2], [0.4, -1.2], [0.4, -0.4], [1.2, -0.4], [1.2, 0.4], [0.4, 0.4], [0.4, 1.2], [-0.4, 1.2], [-0.4, 0.4], [-1.2, 0.4], [-1.2, -0.4], [-0.4, -0.4]] }[marker];
      k.forEach(([a, b], i) => (i ? target.lineTo(x + a * r, y + b * r) : target.moveTo(x + a * r, y + b * r)));
      target.closePath();
    }
  }

  // A few images far away from all others would shrink the rest to a dot: the first view leaves them out, and says so.
  function extentOf(values) {
    const sorted = [...values].sort((a, b) => a - b), at = (q) => sorted[Math.round(q * (sorted.length - 1))];
    const room = 0.5 * (at(0.99) - at(0.01));
    return [Math.max(sorted[0], at(0.01) - room), Math.min(sorted[sorted.length - 1], at(0.99) + room)];
  }
  for (const p of data.projections) {
    p.extent = [0, 1].map((axis) => extentOf(p.xy.map((point) => point[axis])));
    p.outside = p.xy.filter((point) => point.some((v, axis) => v < p.extent[axis][0] || v > p.extent[axis][1])).length;
  }

  // One unit is as long on both axes: distances on the map mean the same in every direction.
  function frame() {
    const width = stage.clientWidth, height = stage.clientHeight;
    const w = width - margin.left - margin.right, h = height - margin.top - margin.bottom;
    const [[x0, x1], [y0, y1]] = projection().extent;
    const perUnit = 0.95 * state.zoom * Math.min(w / Math.max(x1 - x0, 1e-9), h / Math.max(y1 - y0, 1e-9));
    const cx = (x0 + x1) / 2 + state.panX, cy = (y0 + y1) / 2 + state.panY;
    const px = (x) => margin.left + w / 2 + (x - cx) * perUnit, py = (y) => margin.top + h / 2 - (y - cy) * perUnit;
    return { width, height, w, h, perUnit, px, py, xLow: cx - w / 2 / perUnit, xHigh: cx + w / 2 / perUnit, yLow: cy - h / 2 / perUnit, yHigh: cy + h / 2 / perUnit };
  }
  function ticks(low, high, count) {
    const raw = (high - low) / count, power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map((k) => k * power).find((s) => s >= raw);
    const values = [];
    for (let i = Math.ceil(low / step); i * step <= high; i++) values.push(i * step);
    return { values, digits: Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) };
  }

  function draw() {
    const f = frame(), ratio = window.devicePixelRatio || 1;
    if (canvas.width !== Math.round(f.width * ratio) || canvas.height !== Math.round(f.height * ratio)) {
      canvas.width = Math.round(f.width * ratio); canvas.height = Math.round(f.height * ratio);
    }
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.fillStyle = "#fbfcfd"; context.fillRect(0, 0, f.width, f.height);
    context.font = "12px system-ui, sans-serif"; context.lineWidth = 1; context.textBaseline = "middle";
    const right = margin.left + f.w, bottom = margin.top + f.h;
    const line = (a, b, c, d) => { context.beginPath(); context.moveTo(a, b); context.lineTo(c, d); context.stroke(); };
    const xs = ticks(f.xLow, f.xHigh, Math.max(3, f.w / 110)), ys = ticks(f.yLow, f.yHigh, Math.max(3, f.h / 90));
    context.strokeStyle = "#e6eaef"; context.fillStyle = "#5c6773"; context.textAlign = "center";
    for (const x of xs.values) { line(f.px(x), margin.top, f.px(x), bottom); context.fillText(x.toFixed(xs.digits), f.px(x), bottom + 13); }
    context.textAlign = "right";
    for (const y of ys.values) { line(margin.left, f.py(y), right, f.py(y)); context.fillText(y.toFixed(ys.digits), margin.left - 7, f.py(y)); }
    context.textAlign = "center"; context.fillStyle = "#1d2733";
    context.fillText(projection().xLabel, margin.left + f.w / 2, bottom + 34);
    context.save(); context.translate(13, margin.top + f.h / 2); context.rotate(-Math.PI / 2); context.fillText(projection().yLabel, 0, 0); context.restore();
    context.strokeStyle = "#b3bcc6"; context.strokeRect(margin.left, margin.top, f.w, f.h);

    context.save(); context.beginPath(); context.rect(margin.left, margin.top, f.w, f.h); context.clip();
    const radius = data.count > 1500 ? 3 : data.count > 500 ? 3.8 : 4.6;
    let drawn = 0;
    const pass = (neutral) => projection().xy.forEach(([x, y], i) => {
      const code = column().codes[i];
      if (!isVisible(i) || (code === column().neutral) !== neutral) return;
      const style = styleOf(code);
      markerPath(context, style.marker, f.px(x), f.py(y), radius);
      context.globalAlpha = neutral ? 0.55 : 0.82; context.fillStyle = style.color; context.fill();
      context.globalAlpha = 0.9; context.lineWidth = 0.6; context.strokeStyle = "#ffffff"; context.stroke();
      drawn++;
    });
    pass(true); pass(false);  // controls lie underneath
    if (state.hover >= 0) {
      const [x, y] = projection().xy[state.hover], style = styleOf(column().codes[state.hover]);
      context.globalAlpha = 1; markerPath(context, style.marker, f.px(x), f.py(y), radius * 1.7);
      context.fillStyle = style.color; context.fill(); context.lineWidth = 2; context.strokeStyle = "#1d2733"; context.stroke();
    }
    context.restore(); context.globalAlpha = 1;
    canvas.dataset.points = drawn;
  }

  function showTip(i) {
    state.hover = i;
    if (i < 0) { tip.hidden = true; draw(); return; }
    const side = data.atlas.side, image = byId("tip-image"), ratio = window.devicePixelRatio || 1;
    image.width = image.height = Math.round(184 * ratio);
    const pen = image.getContext("2d");
    pen.imageSmoothingEnabled = true; pen.imageSmoothingQuality = "high";
    pen.drawImage(byId("atlas"), (i % data.atlas.columns) * side, Math.floor(i / data.atlas.columns) * side, side, side, 0, 0, image.width, image.height);
    const list = byId("tip-text");
    list.replaceChildren();
    for (const c of data.columns.slice(0, 7)) list.append(make("dt", c.name), make("dd", c.categories[c.codes[i]] || "–"));
    tip.dataset.index = i; tip.hidden = false;
    const f = frame(), [x, y] = projection().xy[i], x0 = f.px(x), y0 = f.py(y);
    let left = x0 + 16;
    if (left + tip.offsetWidth > f.width) left = x0 - 16 - tip.offsetWidth;
    tip.style.left = Math.max(0, Math.min(left, f.width - tip.offsetWidth)) + "px";
    tip.style.top = Math.max(0, Math.min(y0 - tip.offsetHeight / 2, f.height - tip.offsetHeight)) + "px";
    draw();
  }
  function nearest(x, y, reach) {
    const f = frame();
    let best = -1, least = reach * reach;
    if (x < margin.left || x > margin.left + f.w || y < margin.top || y > margin.top + f.h) return -1;
    projection().xy.forEach(([a, b], i) => {
      const distance = (f.px(a) - x) ** 2 + (f.py(b) - y) ** 2;
      if (distance < least && isVisible(i)) { least = distance; best = i; }
    });
    return best;
  }
  const at = (event) => { const box = canvas.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
  let drag = null;
  canvas.addEventListener("pointerdown", (event) => { drag = { x: event.clientX, y: event.clientY }; const i = nearest(...at(event), 18); if (i !== state.hover) showTip(i); });
  window.addEventListener("pointerup", () => { drag = null; });
  window.addEventListener("pointercancel", () => { drag = null; });
  canvas.addEventListener("pointermove", (event) => {
    if (drag && event.buttons) {
      const f = frame();
      state.panX -= (event.clientX - drag.x) / f.perUnit; state.panY += (event.clientY - drag.y) / f.perUnit;
      drag = { x: event.clientX, y: event.clientY }; showTip(-1); return;
    }
    const i = nearest(...at(event), 14);
    if (i !== state.hover) showTip(i);
  });
  canvas.addEventListener("pointerleave", (event) => { if (event.pointerType !== "touch" && document.activeElement !== canvas) showTip(-1); });
  canvas.addEventListener("blur", () => showTip(-1));
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (event.key === "Escape") showTip(-1);
    if (!step) return;
    event.preventDefault();
    let i = state.hover;
    for (let tried = 0; tried < data.count; tried++) {
      i = (i + step + data.count) % data.count;
      if (isVisible(i)) { showTip(i); return; }
    }
  });
  const zoomBy = (factor) => { state.zoom = Math.min(60, Math.max(0.02, state.zoom * factor)); showTip(-1); };
  canvas.addEventListener("wheel", (event) => { if (event.ctrlKey || event.metaKey) { event.preventDefault(); zoomBy(event.deltaY < 0 ? 1.2 : 1 / 1.2); } }, { passive: false });
  byId("zoom-in").addEventListener("click", () => zoomBy(1.4));
  byId("zoom-out").addEventListener("click", () => zoomBy(1 / 1.4));
  const resetView = () => { state.zoom = 1; state.panX = state.panY = 0; showTip(-1); };
  byId("zoom-reset").addEventListener("click", resetView);

  function drawLegend() {
    const legend = byId("legend"), c = column(), counts = c.categories.map(() => 0);
    c.codes.forEach((code) => counts[code]++);
    byId("legend-title").textContent = `${c.name} (${c.categories.length})`;
    legend.className = c.categories.length > 40 ? "many" : "";
    legend.replaceChildren(...c.categories.map((name, code) => {
      const style = styleOf(code), button = make("button", undefined, { type: "button", "aria-pressed": String(!state.hidden.has(code)), title: "Show or hide; double-click for this one alone" });
      const icon = document.createElementNS("http://www.w3.org/2000/svg", "svg"), path = document.createElementNS("http://www.w3.org/2000/svg", "path");
      icon.setAttribute("viewBox", "-7 -7 14 14"); icon.setAttribute("aria-hidden", "true");
      const pieces = [];
      markerPath({ beginPath() {}, moveTo: (x, y) => pieces.push(`M${x} ${y}`), lineTo: (x, y) => pieces.push(`L${x} ${y}`), closePath: () => pieces.push("Z"),
        arc: () => pieces.push("M5 0A5 5 0 1 1 -5 0A5 5 0 1 1 5 0Z"), rect: (x, y, w, h) => pieces.push(`M${x} ${y}h${w}v${h}h${-w}Z`) }, style.marker, 0, 0, 5);
      path.setAttribute("d", pieces.join("")); path.setAttribute("fill", style.color);
      icon.append(path);
      button.append(icon, make("span", name === "" ? "(none)" : name), make("em", counts[code]));
      button.addEventListener("click", () => { if (!state.hidden.delete(code)) state.hidden.add(code); button.setAttribute("aria-pressed", String(!state.hidden.has(code))); showTip(-1); });
      button.addEventListener("dblclick", () => {
        state.hidden = new Set(c.categories.map((_, k) => k).filter((k) => k !== code));
        [...legend.children].forEach((child, k) => child.setAttribute("aria-pressed", String(k === code)));
        showTip(-1);
      });
      return button;
    }));
  }
  function describe() {
    byId("map-title").textContent = `${projection().title}, colored by ${column().name}`;
    const outside = projection().outside;
    byId("map-caption").textContent = projection().caption + (outside ? ` ${outside} of ${data.count} images lie far from the others, outside of the first view: zoom out to see them.` : "");
  }
  const fill = (select, names) => select.replaceChildren(...names.map((name, i) => make("option", name, { value: i })));
  fill(byId("projection"), data.projections.map((p) => p.title));
  fill(byId("color-by"), data.columns.map((c) => c.name));
  byId("projection").addEventListener("change", (event) => { state.projection = Number(event.target.value); describe(); resetView(); });
  byId("color-by").addEventListener("change", (event) => { state.column = Number(event.target.value); state.hidden.clear(); describe(); drawLegend(); showTip(-1); });
  describe(); drawLegend(); draw();
  new ResizeObserver(() => showTip(-1)).observe(stage);
  // Where a point lies on the page: for tests, and for whoever scripts the page.
  window.bieReport = { pointPosition: (i) => { const f = frame(), [x, y] = projection().xy[i]; return [f.px(x), f.py(y)]; } };

  // ---- Confusion matrix and report per class. ----
  if (data.featureSets.length) {
    const features = byId("cm-features"), result = byId("cm-result");
    fill(features, data.featureSets.map((entry) => entry.title));
    const blue = (share) => { const mix = (a, b) => Math.round(a + (b - a) * share); return `rgb(${mix(255, 8)},${mix(255, 64)},${mix(255, 129)})`; };
    const drawClasses = () => {
      const entry = data.featureSets[features.value], r = entry.results[result.value], percent = (v) => (100 * v).toFixed(0) + " %";
      byId("cm-draws").textContent = entry.draws > 1 ? `, counted once for each of ${entry.draws} seeds` : "";
      byId("cm-title").textContent = `Confusion of ${data.label}: ${entry.title}, ${r.classifier}, ${r.split}`;
      const head = make("tr"); head.append(make("td", "", { style: "box-shadow:none" }));
      r.classes.forEach((name) => { const cell = make("th", undefined, { scope: "col" }); cell.append(make("span", name)); head.append(cell); });
      const thead = make("thead"), tbody = make("tbody"); thead.append(head);
      r.confusion.forEach((row, i) => {
        const total = row.reduce((a, b) => a + b, 0), line = make("tr"); line.append(make("th", r.classes[i], { scope: "row" }));
        row.forEach((count, j) => {
          const share = total ? count / total : 0;
          line.append(make("td", count, { style: `background:${blue(share)};color:${share > 0.5 ? "#fff" : count ? "#1d2733" : "#a5aeb8"}`, title: `${count} of ${total} images of ${r.classes[i]} (${percent(share)}) were predicted as ${r.classes[j]}` }));
        });
        tbody.append(line);
      });
      byId("confusion").replaceChildren(thead, tbody);
      const heads = make("tr"), top = make("thead"), body = make("tbody");
      ["class", "precision", "recall", "F1", "support"].forEach((name) => heads.append(make("th", name, { scope: "col" })));
      top.append(heads);
      const add = (name, values) => { const line = make("tr"); line.append(make("th", name, { scope: "row" })); values.forEach((v) => line.append(make("td", v))); body.append(line); };
      let total = 0;
      r.classes.forEach((name) => { const p = r.per_class[name]; total += p.support; add(name, [p.precision.toFixed(3), p.recall.toFixed(3), p.f1.toFixed(3), p.support]); });
      const mean = (key) => (r.classes.reduce((sum, name) => sum + r.per_class[name][key], 0) / r.classes.length).toFixed(3);
      add("macro mean", [mean("precision"), mean("recall"), r.macro_f1.toFixed(3), total]);
      add("accuracy", ["", "", r.accuracy.toFixed(3), total]);
      byId("per-class").replaceChildren(top, body);
    };
    const fillResults = () => { fill(result, data.featureSets[features.value].results.map((r) => `${r.classifier}, ${r.split}`)); drawClasses(); };
    features.addEventListener("change", fillResults);
    result.addEventListener("change", drawClasses);
    fillResults();
  }
})();
