"use strict";
// Filters, the log viewer and the theme. Everything the page says is there without this; what it takes
// from the page or from logs it puts back as text, never as markup.
(() => {
  const find = (id) => document.getElementById(id);
  const show = (element) => element && element.removeAttribute("hidden");

  // ---- theme ------------------------------------------------------------------------------------
  const themes = ["system", "light", "dark"];
  const store = {
    get: () => { try { return localStorage.getItem("vexfs-theme"); } catch { return null; } },
    set: (name) => { try { localStorage.setItem("vexfs-theme", name); } catch { /* private window */ } },
  };
  const setTheme = (name) => {
    if (name === "system") {
      document.documentElement.removeAttribute("data-theme");
    } else {
      document.documentElement.setAttribute("data-theme", name);
    }
    find("theme-name").textContent = name;
  };
  let theme = themes.includes(store.get()) ? store.get() : "system";
  setTheme(theme);
  show(find("theme"));
  find("theme").addEventListener("click", () => {
    theme = themes[(themes.indexOf(theme) + 1) % themes.length];
    setTheme(theme);
    store.set(theme);
  });

  // ---- rows with words ----------------------------------------------------------------------------
  const words = (text) => text.toLowerCase().split(/\s+/).filter(Boolean);
  const hasAll = (text, wanted) => wanted.every((word) => text.includes(word));
  // Some ways to fill a field tell of the one, some of the other.
  const whenFilled = (form, then) => {
    show(form);
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("input", then);
    form.addEventListener("change", then);
    then();
  };
  const many = (n, one, more) => `${n} ${n === 1 ? one : more}`;

  const checks = find("check-filter");
  if (checks) {
    const rows = [...find("matrix").tBodies[0].rows];
    const apply = () => {
      const wanted = words(find("check-find").value);
      const outcome = find("check-outcome").value;
      const tier = find("check-tier").value;
      let shown = 0;
      for (const row of rows) {
        const outcomes = row.dataset.outcomes.split(" ");
        const bad = outcomes.includes("fail") || outcomes.includes("infrastructure");
        const fits = hasAll(row.dataset.words.toLowerCase(), wanted)
          && (tier === "" || row.dataset.tier === tier)
          && (outcome === "" || (outcome === "bad" ? bad : outcomes.includes(outcome)));
        row.hidden = !fits;
        shown += fits ? 1 : 0;
      }
      find("check-found").textContent = `${shown} of ${many(rows.length, "check", "checks")}`;
    };
    whenFilled(checks, apply);
  }

  const trends = find("trend-filter");
  if (trends) {
    const cards = [...document.querySelectorAll("article.trend")];
    const apply = () => {
      const wanted = words(find("trend-find").value);
      const changed = find("trend-changed").checked;
      let shown = 0;
      for (const card of cards) {
        const fits = hasAll(card.dataset.words.toLowerCase(), wanted)
          && (!changed || card.dataset.changed === "yes");
        card.hidden = !fits;
        shown += fits ? 1 : 0;
      }
      find("trend-found").textContent = `${shown} of ${cards.length}`;
    };
    whenFilled(trends, apply);
  }

  // ---- logs ---------------------------------------------------------------------------------------
  const form = find("log-filter");
  if (!form) {
    return;
  }
  const logs = JSON.parse(find("log-data").textContent);
  const choice = find("log-choice");
  const lines = find("log-lines");
  const names = ["emergency", "alert", "critical", "error", "warning", "notice", "info", "debug"];

  // The line's text with what was looked for marked.
  const marked = (text, needle) => {
    const line = document.createDocumentFragment();
    const lower = text.toLowerCase();
    let at = 0;
    for (;;) {
      const hit = needle === "" ? -1 : lower.indexOf(needle, at);
      // Lower case may be longer or shorter than what it is of; then nothing is marked.
      if (hit < 0 || lower.length !== text.length) {
        line.append(text.slice(at));
        return line;
      }
      line.append(text.slice(at, hit));
      const mark = document.createElement("mark");
      mark.textContent = text.slice(hit, hit + needle.length);
      line.append(mark);
      at = hit + needle.length;
    }
  };

  const draw = () => {
    const log = logs.find((candidate) => candidate.id === choice.value) || logs[0];
    const typed = find("log-find").value.toLowerCase();
    // A space alone is not looked for.
    const needle = typed.trim() === "" ? "" : typed;
    const worst = Number(find("log-severity").value);
    const all = log.text.split("\n");
    const shown = document.createDocumentFragment();
    let hits = 0;
    all.forEach((text, index) => {
      const level = log.levels[index];
      if (worst < 9 && !(Number(level) <= worst)) {
        return;
      }
      if (needle !== "" && !text.toLowerCase().includes(needle)) {
        return;
      }
      hits += 1;
      const line = document.createElement("div");
      line.className = level === "-" ? "l" : `l l${level}`;
      const number = document.createElement("span");
      number.className = "no";
      number.textContent = String(log.leftOut + index + 1);
      line.append(number);
      if (Number(level) <= 4) {
        const severity = document.createElement("span");
        severity.className = "sev";
        severity.textContent = names[Number(level)];
        line.append(severity);
      }
      const words = document.createElement("span");
      words.className = "tx";
      words.append(marked(text, needle));
      line.append(words);
      shown.append(line);
    });
    lines.replaceChildren(shown);
    lines.setAttribute("aria-label", `${log.what} of ${log.case}`);
    find("log-found").textContent = `${hits} of ${many(all.length, "line", "lines")}`;
    const note = find("log-note");
    note.replaceChildren();
    if (log.leftOut > 0) {
      note.append(`The first ${many(log.leftOut, "line is", "lines are")} left out for size. `);
    }
    if (log.href) {
      const link = document.createElement("a");
      link.href = log.href;
      link.textContent = "The whole file";
      note.append(link);
    }
  };

  // Leads from a check to its first log.
  const open = (name, dossier) => {
    const wanted = dossier ? `${name} (dossier ${dossier})` : name;
    const log = logs.find((candidate) => candidate.case === wanted)
      || logs.find((candidate) => candidate.case.startsWith(name));
    if (log) {
      choice.value = log.id;
      find("log-find").value = "";
      find("log-severity").value = "9";
      draw();
      lines.scrollTop = 0;
    }
  };
  for (const link of document.querySelectorAll("a[data-case]")) {
    link.addEventListener("click", (event) => {
      // Going to a fragment takes the focus away again.
      event.preventDefault();
      open(link.dataset.case, link.dataset.dossier);
      find("logs").scrollIntoView();
      choice.focus({ preventScroll: true });
    });
  }

  show(lines);
  whenFilled(form, draw);

  // "/" goes to the log's search, as in other viewers, unless one is typing already.
  document.addEventListener("keydown", (event) => {
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
    if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      find("log-find").focus();
    }
  });
})();
