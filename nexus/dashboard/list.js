// Shows the list of runs, and keeps it up to date. Text reaches the page as text only, never as HTML.
"use strict";
(() => {
  const EVERY = 2000; // milliseconds
  const body = document.getElementById("runs");
  const none = document.getElementById("none");
  const state = document.getElementById("state");
  let { tag, list } = JSON.parse(document.getElementById("list-data").textContent);

  const number = (value, digits = 3) => (value === null ? "–" : value.toLocaleString("en", { maximumFractionDigits: digits }));

  function duration(seconds) {
    if (seconds === null) return "–";
    const minutes = Math.round(seconds / 60);
    if (seconds < 60) return `${Math.ceil(seconds)} s`;
    if (minutes < 60) return `${minutes} min`;
    if (minutes < 48 * 60) return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
    return `${Math.round(minutes / 1440)} days`;
  }

  function status(run) {
    if (run.problem !== null) return run.problem;
    return run.silent === null ? run.status : `running, or killed: silent for ${duration(60 * run.silent)}`;
  }

  function score({ score: found }) {
    if (found === null) return "–";
    return "low" in found ? `${number(found.mean)} (${number(found.low)} to ${number(found.high)})` : number(found.mean);
  }

  function row(run) {
    const line = document.createElement("tr");
    const head = document.createElement("th");
    head.scope = "row";
    const link = head.appendChild(document.createElement("a"));
    link.href = `/run/${run.path}`;
    link.textContent = run.name;
    line.append(head);
    const steps = run.steps === null ? "–" : `${number(run.steps)}${run.total === null ? "" : ` of ${number(run.total)}`}`;
    const changed = run.written ? new Date(run.written * 1000).toLocaleString() : "–";
    const cells = [status(run), run.env, run.algorithm, score(run), steps, number(run.rate, 0), duration(run.silent === null ? run.left : null), run.finding, changed];
    for (const text of cells) line.appendChild(document.createElement("td")).textContent = text ?? "–";
    return line;
  }

  function show() {
    const held = document.activeElement?.closest("#runs a")?.getAttribute("href");
    body.replaceChildren(...list.runs.map(row));
    none.hidden = list.runs.length > 0;
    none.textContent = list.exists ? "There is no run in this folder yet." : "There is no such folder; it is shown as soon as it is there.";
    if (held) [...body.querySelectorAll("a")].find((link) => link.getAttribute("href") === held)?.focus();
  }

  async function look() {
    if (!document.hidden) {
      try {
        const answer = await fetch("/api/runs", { headers: { "If-None-Match": tag }, cache: "no-store" });
        if (answer.ok) {
          tag = answer.headers.get("ETag");
          list = await answer.json();
          show();
        }
        state.textContent = answer.ok || answer.status === 304 ? "" : "The dashboard could not read the folder.";
      } catch {
        state.textContent = "The dashboard does not answer: has it ended?";
      }
    }
    timer = setTimeout(look, EVERY);
  }

  show();
  let timer = setTimeout(look, EVERY);
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) return;
    clearTimeout(timer);
    look();
  });
})();
