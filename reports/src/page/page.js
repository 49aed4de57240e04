"use strict";
// Hover or arrow keys over a picture: one cursor through all runs, one tooltip with the state of the run below it.
(() => {
  const data = JSON.parse(document.getElementById("runs").textContent);
  const tip = document.getElementById("tooltip");
  const pictures = [...document.querySelectorAll("svg.timeline")];

  const digits = (v) => (v >= 99.95 ? v.toFixed(0) : v >= 9.995 ? v.toFixed(1) : v.toFixed(2));
  const duration = (us) =>
    us === null ? "none" : us < 999.5 ? `${digits(us)} µs` : us < 999500 ? `${digits(us / 1e3)} ms` : `${digits(us / 1e6)} s`;

  const element = (tag, text, cls) => {
    const e = document.createElement(tag);
    e.textContent = text; // never innerHTML: names and parameters are not ours
    if (cls) e.className = cls;
    return e;
  };
  const row = (table, name, value, cls) => {
    const tr = document.createElement("tr");
    tr.append(element("th", name), element("td", value, cls));
    table.append(tr);
  };

  function fill(run, ms) {
    const table = document.createElement("table");
    run.members.forEach((name, m) => {
      const span = run.roles.find((r) => r[0] === m && r[1] <= ms && ms < r[2]);
      row(table, name, span ? span[3] + (span[4] ? ` · term ${span[4]}` : "") : "unknown");
    });
    const w = run.windows[Math.floor(ms / data.window_ms)];
    if (w) {
      row(table, `puts in ${duration(data.window_ms * 1e3)}`, `${w[0]} returned` + (w[1] ? `, ${w[1]} failed` : ""));
      if (w[2] !== null) row(table, "p50 · p99", `${duration(w[2])} · ${duration(w[3])}`);
    }
    // A momentary fault is shown while the cursor is within a pixel or two of it.
    const near = data.to_ms / data.width * 2;
    run.faults
      .filter((f) => f[0] - near <= ms && ms <= Math.max(f[1], f[0] + near))
      .slice(0, 6)
      .forEach((f) => row(table, "fault", [f[2], f[3], f[4]].filter(Boolean).join(" · "), "wrong"));
    tip.replaceChildren(element("b", `${(ms / 1e3).toFixed(3)} s`), table);
  }

  function show(picture, ms, clientX, clientY) {
    ms = Math.min(Math.max(ms, 0), data.to_ms);
    const x = data.left + (ms / data.to_ms) * data.width;
    for (const p of pictures) {
      const line = p.querySelector(".cursor");
      line.setAttribute("x1", x);
      line.setAttribute("x2", x);
      line.style.display = "inline";
    }
    picture.dataset.ms = ms;
    fill(data.runs[picture.dataset.run], ms);
    tip.hidden = false;
    const room = 16;
    const left = clientX + room + tip.offsetWidth > innerWidth ? clientX - room - tip.offsetWidth : clientX + room;
    const top = Math.min(clientY + room, innerHeight - tip.offsetHeight - 8);
    tip.style.transform = `translate(${Math.max(4, left)}px, ${Math.max(4, top)}px)`;
  }

  function hide() {
    tip.hidden = true;
    for (const p of pictures) p.querySelector(".cursor").style.display = "none";
  }

  for (const picture of pictures) {
    const scale = () => picture.getBoundingClientRect().width / picture.viewBox.baseVal.width;
    picture.addEventListener("pointermove", (e) => {
      const x = (e.clientX - picture.getBoundingClientRect().left) / scale();
      if (x < data.left) return hide();
      show(picture, ((x - data.left) / data.width) * data.to_ms, e.clientX, e.clientY);
    });
    picture.addEventListener("pointerleave", hide);
    picture.addEventListener("blur", hide);
    picture.addEventListener("keydown", (e) => {
      const steps = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10 };
      if (e.key === "Escape") return hide();
      if (!(e.key in steps)) return;
      e.preventDefault();
      const ms = Math.min(Math.max(Number(picture.dataset.ms || 0) + steps[e.key] * data.window_ms, 0), data.to_ms);
      const box = picture.getBoundingClientRect();
      show(picture, ms, box.left + (data.left + (ms / data.to_ms) * data.width) * scale(), Math.max(box.top, 0) + 40);
    });
  }

  for (const button of document.querySelectorAll(".copy")) {
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(button.previousElementSibling.textContent);
        button.textContent = "copied";
      } catch {
        getSelection().selectAllChildren(button.previousElementSibling);
        button.textContent = "selected";
      }
      setTimeout(() => (button.textContent = "copy"), 1500);
    });
  }

  for (const input of document.querySelectorAll(".filter")) {
    const rows = [...input.parentElement.querySelectorAll("tbody tr")];
    input.addEventListener("input", () => {
      const words = input.value.toLowerCase();
      for (const tr of rows) tr.hidden = !tr.textContent.toLowerCase().includes(words);
    });
  }
})();
