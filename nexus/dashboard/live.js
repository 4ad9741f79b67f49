// Keeps the page of a run up to date: asks what has changed, and lets the report's script show it in place.
"use strict";
(() => {
  const EVERY = 2000; // milliseconds
  const { live } = JSON.parse(document.getElementById("report-data").textContent);
  if (!live) return;
  let { tag, files } = live;
  let timer;

  const bar = document.createElement("nav");
  bar.className = "live";
  const home = bar.appendChild(document.createElement("a"));
  home.href = "/";
  home.textContent = "All runs";
  const said = bar.appendChild(document.createElement("span"));
  said.setAttribute("role", "status");
  document.querySelector("main").before(bar);

  function age() {
    const newest = Math.max(0, ...Object.values(files).map(([, changed]) => changed));
    const seconds = Math.max(0, Math.round(Date.now() / 1000 - newest));
    if (!newest) return "";
    if (seconds < 60) return "written to less than a minute ago";
    return `last written to ${new Date(newest * 1000).toLocaleString()}`;
  }

  function say(text) {
    if (said.textContent !== text) said.textContent = text;
  }

  async function ask() {
    const answer = await fetch(live.url, { headers: { "If-None-Match": tag }, cache: "no-store" });
    if (answer.status === 404) return "This run's folder is gone. What was read of it stays here.";
    if (answer.status !== 304 && !answer.ok) return "The dashboard could not read this run.";
    if (answer.ok) {
      const found = await answer.json();
      tag = answer.headers.get("ETag");
      files = found.live.files;
      if (live.problem !== null && found.problem === undefined) location.reload();
      if (found.problem !== undefined) return found.problem;
      if (live.problem === null) {
        const page = new DOMParser().parseFromString(found.html, "text/html");
        nexusReport.renew(page.querySelector("main"), found.data);
      }
    }
    return age();
  }

  async function look() {
    clearTimeout(timer);
    if (!document.hidden) {
      try {
        say(await ask());
      } catch {
        say("The dashboard does not answer: has it ended?");
      }
    }
    clearTimeout(timer);
    timer = setTimeout(look, EVERY);
  }

  // The replay is read on demand: that takes the server seconds.
  const button = document.querySelector("#replay .read");
  button?.addEventListener("click", async () => {
    const status = document.querySelector("#replay [role=status]");
    button.disabled = true;
    status.textContent = "Reading it ...";
    try {
      const answer = await fetch(live.replay, { cache: "no-store" });
      if (!answer.ok) throw new Error();
      const found = new DOMParser().parseFromString((await answer.json()).html, "text/html");
      document.querySelectorAll("#replay > :not(h2):not(:has(.read))").forEach((old) => old.remove());
      document.querySelector("#replay").append(...[...found.body.children].map((part) => document.adoptNode(part)));
      button.textContent = "Read it again";
      status.textContent = "";
    } catch {
      status.textContent = "The dashboard could not read it.";
    }
    button.disabled = false;
  });

  say(age());
  timer = setTimeout(look, EVERY);
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) look();
  });
})();
