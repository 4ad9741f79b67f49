// Shows the film of an episode, from the data in the page: a frame, the values of the actions, and a curve with a cursor
// at the frame.
"use strict";
(() => {
  const { film } = JSON.parse(document.getElementById("report-data").textContent);
  const box = document.querySelector("#film .film");
  if (!film || !box) return;
  const EVERY = 120; // milliseconds between frames
  const CURVES = [["taken", "Q(s, a), the largest", "--c0", []], ["realised", "return received", "--c1", [7, 4]]];
  const image = box.querySelector("img");
  const now = box.querySelector(".now");
  const rows = box.querySelector("tbody");
  const slider = box.querySelector("input");
  const button = box.querySelector("button");
  const curve = box.querySelector(".curve");
  const [low, high] = film.range;
  const last = film.places.length - 1;
  let timer = null;
  let plot = null;

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const number = (value) => (value === null ? "not known" : value.toLocaleString("en", { maximumSignificantDigits: 4 }));
  const nameOf = (action) => (film.names[action] === undefined ? String(action) : `${action} ${film.names[action]}`);

  function rowOf([action, value, legal], greedy) {
    const row = document.createElement("tr");
    if (action === greedy) row.className = "greedy";
    if (!legal) row.className = "illegal";
    const name = row.appendChild(document.createElement("th"));
    name.scope = "row";
    name.textContent = nameOf(action);
    const bar = row.appendChild(document.createElement("td"));
    if (legal && value !== null) {
      const drawn = bar.appendChild(document.createElement("div"));
      drawn.className = "bar";
      drawn.style.width = `${high > low ? Math.max(0, Math.min(1, (value - low) / (high - low))) * 100 : 50}%`;
    }
    row.appendChild(document.createElement("td")).textContent = legal ? number(value) : "–";
    row.appendChild(document.createElement("td")).textContent = legal ? (action === greedy ? "greedy" : "") : "not allowed";
    return row;
  }

  function textAt(place) {
    const { greedy, reward, error } = film.scenes[place];
    const step = `step ${film.places[place].toLocaleString("en")}`;
    if (greedy === null) return `${step}: ${film.end}${film.end === "terminated" ? ", so nothing follows" : ""}`;
    const paid = `action ${nameOf(greedy)}, reward ${number(reward)}`;
    return `${step}: ${paid}${error === null ? "" : `, TD error ${number(error)}`}`;
  }

  function show(place) {
    const scene = film.scenes[place];
    const text = textAt(place);
    slider.value = place;
    slider.setAttribute("aria-valuetext", text);
    now.textContent = text;
    if (film.frames[place] !== null) {
      image.src = film.frames[place];
      image.alt = `The environment at step ${film.places[place]}`;
    }
    rows.replaceChildren(...scene.bars.map((bar) => rowOf(bar, scene.greedy)));
    point();
  }

  // Puts the cursor of the curve where the film is.
  function point() {
    if (!plot) return;
    const left = plot.valToPos(Math.min(film.places[slider.value], plot.data[0].at(-1)), "x");
    plot.setCursor({ left, top: 0 }, false);
  }

  function stop() {
    clearInterval(timer);
    timer = null;
    button.textContent = "play";
  }

  function play() {
    if (timer !== null) return stop();
    if (Number(slider.value) === last) show(0);
    button.textContent = "pause";
    timer = setInterval(() => {
      show(Math.min(Number(slider.value) + 1, last));
      if (Number(slider.value) === last) stop();
    }, EVERY);
  }

  function draw() {
    plot?.destroy();
    const known = CURVES.filter(([name]) => film.curve[name].some((value) => value !== null));
    const axis = { stroke: colour("--soft"), grid: { stroke: colour("--rule"), width: 1 }, ticks: { stroke: colour("--rule"), width: 1 } };
    const options = {
      width: curve.clientWidth,
      height: 200,
      scales: { x: { time: false } },
      axes: [axis, { ...axis, size: 70 }],
      cursor: { y: false, drag: { x: false, y: false }, points: { size: 7 }, bind: { mousemove: () => null, mouseleave: () => null } },
      series: [
        { label: "step", value: (_, value) => (value === null ? "–" : number(value)) },
        ...known.map(([, label, stroke, dash]) => ({ label, stroke: colour(stroke), dash, width: 2, value: (_, value) => (value === null || value === undefined ? "–" : number(value)) })),
      ],
    };
    plot = new uPlot(options, [film.curve.x, ...known.map(([name]) => film.curve[name])], curve);
    curve.setAttribute("aria-label", `${known.map(([, label]) => label).join(", ")} over the steps of the episode`);
    point();
  }

  slider.max = last;
  slider.addEventListener("input", () => {
    stop();
    show(Number(slider.value));
  });
  slider.addEventListener("keydown", (event) => {
    if (event.key !== " ") return;
    event.preventDefault();
    play();
  });
  button.addEventListener("click", play);
  if (film.frames.every((frame) => frame === null)) {
    image.parentElement.hidden = true;
    box.classList.add("bare");
  }
  box.hidden = false;
  show(0);
  draw();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth === width) return;
    width = innerWidth;
    draw();
  });
})();
