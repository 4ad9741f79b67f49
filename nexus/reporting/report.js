// Draws the charts of a report with uPlot, from the data in the page. Text reaches the page as text only, never as HTML.
"use strict";
(() => {
  let data = JSON.parse(document.getElementById("report-data").textContent);
  const COLOURS = 7;
  const DASHES = [[], [7, 4], [2, 3], [11, 3, 2, 3]]; // in turn once the colours repeat
  const NARROW = 480; // pixels
  const plots = new Map(); // element -> { plot, chart, log }

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  function short(value) {
    if (value === null || value === undefined) return "–";
    const size = Math.abs(value);
    if (size >= 1e9 || (size > 0 && size < 1e-4)) return value.toExponential(2);
    return value.toLocaleString("en", { maximumSignificantDigits: size >= 1000 ? 7 : 4 });
  }

  // The numbers of an axis; it leaves some of its logarithmic marks without one.
  function marked(_, marks) {
    const large = marks.some((mark) => Math.abs(mark ?? 0) >= 1e4);
    const compact = { notation: "compact", maximumSignificantDigits: 4 };
    return marks.map((mark) => (mark === null ? "" : large ? mark.toLocaleString("en", compact) : short(mark)));
  }

  // One x axis for all lines, from `start` to `end`. uPlot passes over undefined values, and leaves a gap for null. Several
  // episodes can end at one step, so an x that a line has twice occurs twice.
  function merged(lines, start, end) {
    const times = new Map([[start, 1], [end, 1]]);
    for (const { x } of lines) {
      const own = new Map();
      for (const value of x) own.set(value, (own.get(value) ?? 0) + 1);
      for (const [value, count] of own) times.set(value, Math.max(count, times.get(value) ?? 0));
    }
    const xs = [...times.keys()].sort((a, b) => a - b).flatMap((value) => Array(times.get(value)).fill(value));
    const on = (x, column) => {
      let next = 0;
      return xs.map((value) => (x[next] === value ? column[next++] : undefined));
    };
    return { xs, on };
  }

  // What uPlot draws of a line: its series, and for an interval two more with the band between them.
  function seriesOf(line, place) {
    const alone = data.runs === 1;
    const turn = alone ? place : line.run;
    const behind = line.style === "dots" || line.style === "light";
    const stroke = alone && behind ? colour("--soft") : colour(`--c${turn % COLOURS}`);
    const dash = DASHES[((alone ? 0 : Math.floor(turn / COLOURS)) + (line.style === "dashed" ? 1 : 0)) % DASHES.length];
    const series = {
      label: line.label,
      stroke,
      dash,
      width: behind ? 1.5 : 2,
      alpha: behind ? 0.7 : 1,
      value: (_, value) => short(value),
      points: { show: line.style === "marked" || line.y.length === 1, size: 5, fill: stroke },
    };
    if (line.style === "dots") {
      Object.assign(series, { paths: () => null, alpha: 0.35, points: { show: true, size: 4, fill: stroke, stroke } });
    }
    return series;
  }

  // What uPlot draws of a chart.
  function drawing(chart, known) {
    const positive = chart.lines.every((line) => line.y.every((value) => value === null || value > 0));
    const log = positive && (known ? known.log : chart.logarithmic);
    const { xs, on } = merged(chart.lines, chart.start, chart.end);
    const columns = [xs];
    const series = [{ label: chart.axis, value: (_, value) => short(value) }];
    const bands = [];
    let inFront = 0;
    for (const line of chart.lines) {
      const place = line.style === "dots" || line.style === "light" ? 0 : inFront++;
      series.push(seriesOf(line, place));
      columns.push(on(line.x, line.y));
      if (!line.low) continue;
      const edge = { stroke: "transparent", width: 0, points: { show: false }, class: "edge" };
      bands.push({ series: [series.length, series.length + 1], fill: `${series.at(-1).stroke}33` });
      series.push({ ...edge, label: `${line.label}, upper end` }, { ...edge, label: `${line.label}, lower end` });
      columns.push(on(line.x, line.high), on(line.x, line.low));
    }
    return { positive, log, columns, series, bands };
  }

  function draw(element, range) {
    const chart = data.charts[Number(element.dataset.chart)];
    const known = plots.get(element);
    const hidden = known ? known.plot.series.filter(({ show }) => !show).map(({ label }) => label) : [];
    const { positive, log, columns, series, bands } = drawing(chart, known);
    for (const each of series) if (hidden.includes(each.label)) each.show = false;
    const tens = (_, marks) => marks.map((mark) => (Number.isInteger(Math.log10(mark)) ? mark : null));
    const axis = { stroke: colour("--soft"), grid: { stroke: colour("--rule"), width: 1 }, ticks: { stroke: colour("--rule"), width: 1 } };
    const options = {
      width: element.clientWidth,
      height: element.clientWidth < NARROW ? 220 : 280,
      series,
      bands,
      scales: { x: { time: false }, y: { distr: log ? 3 : 1 } },
      axes: [
        { ...axis, values: marked },
        { ...axis, values: marked, size: widthOf, grid: { ...axis.grid, ...(log && { filter: tens }) } },
      ],
      cursor: { sync: { key: chart.axis }, drag: { x: true, y: false }, points: { size: 7 } },
      legend: { live: true },
      hooks: { setScale: [(_, key) => key === "x" && zoomed(element)], setSeries: [hideEdges] },
    };
    if (known) known.plot.destroy();
    element.replaceChildren();
    const tools = element.appendChild(document.createElement("div"));
    tools.className = "tools";
    const plot = new uPlot(options, columns, element);
    plots.set(element, { plot, chart, log, tools, positive });
    label(element);
    furnish(element, positive);
    if (range) plot.setScale("x", range);
  }

  // The ends of an interval are hidden with their line.
  function hideEdges(plot, place, change) {
    for (let edge = place + 1; change.show !== undefined && plot.series[edge]?.class === "edge"; edge++) {
      if (plot.series[edge].show !== change.show) plot.setSeries(edge, { show: change.show });
    }
  }

  // The space that the numbers of an axis need, in pixels.
  function widthOf(plot, values) {
    return 18 + 7 * Math.max(3, ...(values ?? []).map((value) => value.length));
  }

  function label(element) {
    const canvas = element.querySelector("canvas");
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", element.getAttribute("aria-label"));
    for (const row of element.querySelectorAll(".u-legend .u-series")) {
      if (row.classList.contains("edge")) row.hidden = true;
    }
    for (const name of [...element.querySelectorAll(".u-legend .u-series th")].slice(1)) {
      name.tabIndex = 0;
      name.setAttribute("role", "button");
      name.addEventListener("keydown", (event) => {
        if (event.key !== "Enter" && event.key !== " ") return;
        event.preventDefault();
        name.click();
      });
    }
  }

  // A switch for a logarithmic axis, where there can be one, and a button that shows everything again.
  function furnish(element, positive) {
    const state = plots.get(element);
    if (positive) {
      const box = document.createElement("label");
      const input = document.createElement("input");
      input.type = "checkbox";
      input.checked = state.log;
      input.addEventListener("change", () => {
        state.log = input.checked;
        draw(element, isZoomed(state) ? { ...state.plot.scales.x } : null);
        element.querySelector("input").focus();
      });
      box.append(input, " logarithmic");
      state.tools.append(box);
    }
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "show everything";
    button.hidden = true;
    button.addEventListener("click", () => showAll(element));
    state.tools.append(button);
    state.button = button;
  }

  // Draws new data in place: what is zoomed stays zoomed, and hidden lines stay hidden.
  function refresh(element) {
    const state = plots.get(element);
    const range = isZoomed(state) ? { min: state.plot.scales.x.min, max: state.plot.scales.x.max } : null;
    const chart = data.charts[Number(element.dataset.chart)];
    const { positive, log, columns, series } = drawing(chart, state);
    const same = positive === state.positive && log === state.log && series.length === state.plot.series.length && series.every(({ label }, place) => label === state.plot.series[place].label);
    if (!same) return draw(element, range);
    state.chart = chart;
    state.plot.batch(() => {
      state.plot.setData(columns, false);
      state.plot.setScale("x", range ?? { min: chart.start, max: chart.end });
    });
  }

  const isZoomed = ({ plot, chart }) => plot.scales.x.min > chart.start || plot.scales.x.max < chart.end;

  function zoomed(element) {
    const state = plots.get(element);
    if (state?.button) state.button.hidden = !isZoomed(state);
  }

  function showAll(element) {
    const { plot, chart } = plots.get(element);
    plot.setScale("x", { min: chart.start, max: chart.end });
    element.focus();
  }

  function steer(event) {
    const state = plots.get(event.currentTarget);
    if (event.target !== event.currentTarget || !state || event.ctrlKey || event.metaKey || event.altKey) return;
    const { plot } = state;
    const { min, max } = plot.scales.x;
    const xs = plot.data[0];
    const here = plot.cursor.idx ?? plot.valToIdx((min + max) / 2);
    const go = (place) => {
      const at = Math.min(Math.max(place, 0), xs.length - 1);
      plot.setCursor({ left: plot.valToPos(xs[at], "x"), top: 0 });
    };
    const zoom = (factor) => {
      const centre = xs[here];
      plot.setScale("x", { min: Math.max(state.chart.start, centre - (centre - min) * factor), max: Math.min(state.chart.end, centre + (max - centre) * factor) });
    };
    const acts = {
      ArrowLeft: () => go(here - 1),
      ArrowRight: () => go(here + 1),
      "+": () => zoom(0.5),
      "-": () => zoom(2),
      0: () => showAll(event.currentTarget),
    };
    if (!acts[event.key]) return;
    event.preventDefault();
    acts[event.key]();
  }

  const shown = (element) => !element.closest("details:not([open])");
  const drawMissing = () => {
    for (const element of document.querySelectorAll(".plot")) if (shown(element) && !plots.has(element)) draw(element);
  };

  // Makes what is new on the page react.
  function attend(part) {
    part.querySelectorAll(".plot").forEach((element) => element.addEventListener("keydown", steer));
    part.querySelectorAll("details").forEach((details) => details.addEventListener("toggle", drawMissing));
  }
  attend(document);
  drawMissing();

  // Replaces a part of the page if the new one differs; what was unfolded stays so.
  function replace(old, fresh) {
    if (!old || !fresh || old.dataset.source === fresh.innerHTML) return;
    const source = fresh.innerHTML;
    const open = [...old.querySelectorAll("details")].map((details) => details.open);
    fresh = document.adoptNode(fresh);
    fresh.querySelectorAll("details").forEach((details, place) => (details.open = open[place] ?? details.open));
    fresh.dataset.source = source;
    old.replaceWith(fresh);
    attend(fresh);
  }

  const titleOf = (figure) => figure.querySelector("figcaption strong").textContent;

  // The curves: each plot stays the same element, so that its zoom and its hidden lines stay.
  function renewCurves(old, fresh) {
    const figures = new Map([...old.querySelectorAll("figure")].map((figure) => [titleOf(figure), figure]));
    const wanted = [...fresh.querySelectorAll("figure")];
    const places = [...figures.keys()];
    const same = places.length === wanted.length && wanted.every((figure, place) => titleOf(figure) === places[place]);
    for (const figure of wanted) {
      const known = figures.get(titleOf(figure))?.querySelector(".plot");
      const plot = figure.querySelector(".plot");
      if (!known) continue;
      known.dataset.chart = plot.dataset.chart;
      known.setAttribute("aria-label", plot.getAttribute("aria-label"));
      known.querySelector("canvas")?.setAttribute("aria-label", plot.getAttribute("aria-label"));
      if (!same) plot.replaceWith(document.adoptNode(known));
    }
    if (same) {
      for (const figure of wanted) {
        const known = figures.get(titleOf(figure));
        replace(known.querySelector(":scope > details"), figure.querySelector(":scope > details"));
        const [gaps, now] = [known, figure].map((each) => each.querySelector(":scope > .remarks"));
        if (gaps) gaps.remove();
        if (now) known.append(document.adoptNode(now));
      }
    } else {
      replace(old, fresh);
    }
    for (const element of [...plots.keys()]) if (!element.isConnected) plots.delete(element);
    for (const element of plots.keys()) refresh(element);
    drawMissing();
  }

  // Shows a newer version of this page of one run: its `main`, and what its charts draw.
  function renew(main, next) {
    data = next;
    for (const part of ["header", "#score", "#findings", "#settings", "#repeat"]) {
      replace(document.querySelector(`main > ${part}`), main.querySelector(`:scope > ${part}`));
    }
    renewCurves(document.querySelector("#curves"), main.querySelector("#curves"));
  }
  window.nexusReport = { renew };

  const redraw = () => [...plots].filter(([element]) => shown(element)).forEach(([element, state]) => draw(element, isZoomed(state) ? { ...state.plot.scales.x } : null));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth === width) return; // a phone's address bar changes only the height
    width = innerWidth;
    redraw();
  });

  // A link to a run's section opens it.
  const openTarget = () => {
    const target = location.hash && document.getElementById(location.hash.slice(1));
    if (target instanceof HTMLDetailsElement) target.open = true;
  };
  addEventListener("hashchange", openTarget);
  openTarget();
})();
