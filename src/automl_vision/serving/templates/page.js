"use strict";
// Names of files and classes come from outside: they are written as text, never as HTML.

const TOP = 5; // bars of a card at most
const ALWAYS = 3; // bars that are shown however short they are
const SEEN = 0.01; // share from which on others are
const EXPLAINED = 4; // images chosen together up to which heat maps come by themselves
const AT_ONCE = 3; // requests under way
const TRIES = 6; // of an image that a busy server sends away
const TINY = 64; // pixels up to which an image is shown with hard edges
const MEGABYTE = 2 ** 20;

const main = document.querySelector("main");
const drop = document.getElementById("drop");
const results = document.getElementById("results");
const announcer = document.getElementById("status");
const threshold = Number(main.dataset.threshold);
const explains = "explains" in main.dataset;
const fileBytes = Number(main.dataset.fileBytes);

// What the page that asked for it kept, where this server wants a token: in this tab, until it is closed.
const token = sessionStorage.getItem("automl-vision token");
const headers = token ? { Authorization: `Bearer ${token}` } : {};

const waiting = [];
let underWay = 0;

function percent(share) {
  const value = 100 * share;
  if (value > 0 && value < 0.1) return "< 0.1 %";
  return `${value > 99.9 && value < 100 ? "> 99.9" : value.toFixed(1)} %`;
}

function add(files) {
  const chosen = [...files];
  // The newest stand on top, those that were chosen together in their order.
  const explained = explains && chosen.length <= EXPLAINED;
  const cards = chosen.map((file) => ({ file, explained, element: newCard(file) }));
  results.prepend(...cards.map((card) => card.element));
  waiting.push(...cards);
  work();
}

function newCard(file) {
  const element = document.getElementById("card").content.firstElementChild.cloneNode(true);
  element.classList.add("waiting");
  element.querySelector(".file").textContent = file.name || "picture";
  element.querySelector(".file").title = file.name;
  element.querySelector(".headline").textContent = "Looking …";
  preview(element, file);
  return element;
}

function preview(element, file) {
  const image = element.querySelector("img");
  const address = URL.createObjectURL(file);
  image.addEventListener("load", () => {
    image.classList.toggle("tiny", Math.max(image.naturalWidth, image.naturalHeight) <= TINY);
    URL.revokeObjectURL(address);
  });
  image.addEventListener("error", () => {
    element.querySelector(".thumb").classList.add("empty");
    URL.revokeObjectURL(address);
  });
  image.src = address;
}

function work() {
  while (underWay < AT_ONCE && waiting.length) {
    const card = waiting.shift();
    underWay += 1;
    ask(card.file)
      .then((row) => show(card, row))
      .finally(() => {
        underWay -= 1;
        work();
      });
  }
}

async function ask(file, query = "") {
  if (file.size > fileBytes) {
    const detail = `${(file.size / MEGABYTE).toFixed(1)} MB, over ${(fileBytes / MEGABYTE).toFixed(1)} MB`;
    return failed("too_large", detail, "scale the image down");
  }
  const body = new FormData();
  body.append("files", file, file.name || "picture");
  try {
    for (let attempt = 1; ; attempt += 1) {
      const response = await fetch(`/predict?top=${TOP}${query}`, { method: "POST", headers, body });
      const again = response.headers.get("Retry-After");
      if (!again || attempt === TRIES) return rowOf(await response.json());
      await new Promise((resolve) => setTimeout(resolve, 1000 * Number(again)));
    }
  } catch (error) {
    return failed("unreachable", "the server does not answer", "check that it still runs, and try again");
  }
}

function rowOf(answer) {
  return answer.results ? answer.results[0] : { status: "error", error: answer.error };
}

function failed(kind, detail, fix) {
  return { status: "error", error: { kind, detail, fix } };
}

const HEADLINES = {
  too_large: "Too large",
  not_an_image: "Not an image",
  truncated: "Damaged file",
  empty: "Empty file",
  busy: "Busy, try again",
  no_token: "Another token is needed",
  too_many_requests: "Too many requests",
  unreachable: "No answer",
};

function show({ file, explained, element }, row) {
  element.classList.remove("waiting");
  element.classList.add(row.status);
  const name = element.querySelector(".file").textContent;
  const headline = element.querySelector(".headline");
  const detail = element.querySelector(".detail");
  if (row.status === "error") {
    headline.textContent = HEADLINES[row.error.kind] || "No answer";
    detail.textContent = `${capital(row.error.detail)}. ${capital(row.error.fix)}.`;
  } else {
    const classes = Object.entries(row.probabilities).sort((one, other) => other[1] - one[1]);
    headline.textContent = row.status === "ok" ? row.label : "Not sure";
    detail.textContent = row.status === "ok" ? "" : `No class reaches ${Number((100 * threshold).toFixed(1))} %.`;
    const shown = classes.filter(([, share], place) => place < ALWAYS || share >= SEEN);
    element.querySelector(".bars").append(...shown.map(([label, share]) => newBar(label, share)));
    offerHeatMap(file, element, explained);
  }
  announcer.textContent = `${name}: ${headline.textContent} ${detail.textContent}`;
}

function offerHeatMap(file, element, atOnce) {
  const button = element.querySelector(".look");
  button.hidden = !explains;
  button.addEventListener("click", async () => {
    button.disabled = true;
    const row = await ask(file, "&explain=1");
    button.hidden = row.status !== "error";
    button.disabled = false;
    if (row.status === "error") button.textContent = "No heat map, try again";
    else showHeatMap(element.querySelector(".heat"), row, element.querySelector(".thumb img"));
  });
  if (explains && atOnce) button.click();
}

function showHeatMap(figure, row, original) {
  const label = Object.entries(row.probabilities).sort((one, other) => other[1] - one[1])[0][0];
  figure.hidden = false;
  figure.classList.toggle("none", !row.heat_map);
  figure.querySelector("figcaption").textContent = row.heat_map
    ? `Bright is where the score for ${label} is sensitive. It shows no cause.`
    : `Nothing in this image speaks for ${label}.`;
  if (!row.heat_map) return;
  const image = figure.querySelector("img");
  // The policy of this page allows pictures of its own making, and no data: addresses.
  const bytes = Uint8Array.from(atob(row.heat_map.split(",")[1]), (each) => each.charCodeAt(0));
  const address = URL.createObjectURL(new Blob([bytes], { type: "image/png" }));
  image.addEventListener("load", () => URL.revokeObjectURL(address));
  image.classList.toggle("tiny", original.classList.contains("tiny"));
  image.src = address;
}

function newBar(label, share) {
  const element = document.getElementById("bar").content.firstElementChild.cloneNode(true);
  element.querySelector(".class").textContent = label;
  element.querySelector(".share").textContent = percent(share);
  const fill = element.querySelector(".fill");
  requestAnimationFrame(() => requestAnimationFrame(() => (fill.style.width = `${100 * share}%`)));
  return element;
}

function capital(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

for (const input of document.querySelectorAll("input[type=file]")) {
  input.addEventListener("change", () => {
    add(input.files);
    input.value = ""; // so that the same image can be chosen again
  });
}

// The whole page takes what is dropped: who misses the frame would otherwise leave the page.
for (const kind of ["dragenter", "dragover"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
}
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) drop.classList.remove("over");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  add(event.dataTransfer.files);
});
document.addEventListener("paste", (event) => add(event.clipboardData.files));
