"use strict";
(() => {
  const box = document.getElementById("slider");
  const counts = JSON.parse(box.dataset.counts);
  const classes = JSON.parse(box.dataset.classes);
  const range = box.querySelector("input");
  const sets = ["validation", "test"];
  const percent = (part, whole) => (whole ? (100 * part / whole).toFixed(1) + "\u00a0%" : "–");
  const write = (name, text) => { box.querySelector('[data-cell="' + name + '"]').textContent = text; };

  const body = box.querySelector("tbody.by-class");
  const cells = [];
  if (body) {
    classes.forEach((name) => {
      const row = body.insertRow();
      const head = document.createElement("th");
      head.scope = "row";
      head.textContent = name;
      row.append(head);
      cells.push([0, 1, 2, 3].map(() => { const cell = row.insertCell(); cell.className = "n"; return cell; }));
    });
  }

  const show = () => {
    const k = Number(range.value);
    const threshold = counts.thresholds[k].toFixed(3);
    write("threshold", threshold);
    range.setAttribute("aria-valuetext", threshold);
    sets.forEach((name) => {
      const set = counts[name];
      write(name + "-answered", percent(set.answered[k], set.n));
      write(name + "-images", set.answered[k] + " of " + set.n);
      write(name + "-right", percent(set.right[k], set.answered[k]));
      write(name + "-range", set.low[k] === null ? "–"
        : (100 * set.low[k]).toFixed(1) + " to " + (100 * set.high[k]).toFixed(1) + "\u00a0%");
    });
    cells.forEach((row, c) => {
      sets.forEach((name, s) => {
        const each = counts[name].per_class;
        row[2 * s].textContent = percent(each.answered[k][c], each.n[c]);
        row[2 * s + 1].textContent = percent(each.right[k][c], each.answered[k][c]);
      });
    });
  };
  range.addEventListener("input", show);
  box.hidden = false;
  show();
})();
