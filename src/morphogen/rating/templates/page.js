"use strict";
(() => {
  const study = JSON.parse(document.getElementById("study").textContent);
  const at = id => document.getElementById(id);
  const total = study.showings.length;
  const shelf = `morphogen-rating:${study.study}`;
  const LEVELS = {score: 5, confidence: 3};

  let rater = "", answers = {}, seconds = {}, order = [], here = 0, unsaved = false, kept = true;
  let since = null; // when the image in view came into view; null while none can be seen

  // ---- who rates, and in which order

  const plain = name => name.trim().replace(/\s+/g, " ");
  const folded = name => plain(name).normalize("NFC").toLowerCase();

  // Numbers in [0, 1) that follow from a text: FNV-1a for the start, xorshift (Marsaglia, 2003) for the sequence.
  function sequence(text) {
    let x = 2166136261;
    for (const byte of new TextEncoder().encode(text)) x = Math.imul(x ^ byte, 16777619);
    x = x || 1;
    const next = () => { x ^= x << 13; x ^= x >>> 17; x ^= x << 5; return (x >>> 0) / 4294967296; };
    for (let i = 0; i < 16; i++) next();
    return next;
  }

  function shuffled(items, random) {
    const list = [...items];
    for (let i = list.length - 1; i > 0; i--) {
      const j = Math.floor(random() * (i + 1));
      [list[i], list[j]] = [list[j], list[i]];
    }
    return list;
  }

  // How far apart the two showings of a picture are, at the least.
  function gap(list) {
    const seen = new Map();
    let least = list.length;
    list.forEach((showing, i) => {
      if (seen.has(showing.picture)) least = Math.min(least, i - seen.get(showing.picture));
      seen.set(showing.picture, i);
    });
    return least;
  }

  // An order of one's own for every rater; of some shuffles the first that keeps repeats well apart.
  function orderFor(name) {
    const random = sequence(`${study.study} ${folded(name)}`), wanted = Math.min(10, total / 4);
    let best = null;
    for (let i = 0; i < 100; i++) {
      const list = shuffled(study.showings, random);
      if (!best || gap(list) > gap(best)) best = list;
      if (gap(best) >= wanted) break;
    }
    return best;
  }

  // ---- keeping answers

  function stored(name) {
    try { return JSON.parse(localStorage.getItem(`${shelf}:${folded(name)}`)) || {}; } catch { return {}; }
  }

  // What was answered last holds, be it in this window, in another one or in a file.
  function merge(others) {
    for (const [id, other] of Object.entries(others || {}))
      if (!answers[id] || other.at > answers[id].at) answers[id] = other;
  }

  function keep() {
    merge(stored(rater).answers);
    try {
      localStorage.setItem(`${shelf}:${folded(rater)}`, JSON.stringify({rater, answers, seconds}));
      localStorage.setItem(shelf, rater);
      kept = true;
    } catch { kept = false; }
  }

  const complete = showing => {
    const answer = answers[showing.id];
    return Boolean(answer && answer.score && answer.confidence);
  };
  const firstOpen = () => order.findIndex(showing => !complete(showing));
  const rated = () => order.filter(complete).length;

  function exported() {
    return JSON.stringify({
      format: "morphogen-rating-answers", version: study.version, study: study.study, rater, total, rated: rated(),
      saved: new Date().toISOString(),
      answers: order.flatMap((showing, i) => {
        const answer = answers[showing.id];
        if (!answer || !answer.score) return [];
        return [{id: showing.id, position: i + 1, score: answer.score, confidence: answer.confidence || null,
          seconds: Math.round((seconds[showing.id] || 0) * 10) / 10, at: answer.at}];
      }),
    }, null, 1);
  }

  function save() {
    clock();
    const link = document.createElement("a");
    const url = URL.createObjectURL(new Blob([exported()], {type: "application/json"}));
    link.href = url;
    link.download = `answers-${folded(rater).replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-+|-+$/g, "") || "rater"}-${study.study.slice(0, 6)}.json`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 60000);
    unsaved = false;
    at("saved").textContent = `Saved as ${link.download}, in the folder of your downloads.`;
    say(`Saved ${rated()} of ${total} answers`);
  }

  function load(text) {
    const fail = line => { at("fault").textContent = line; };
    let file;
    try { file = JSON.parse(text); } catch { return fail("This file holds no answers: it is not JSON."); }
    if (!file || file.format !== "morphogen-rating-answers" || !Array.isArray(file.answers) || typeof file.rater !== "string")
      return fail("This file holds no answers of a rating page.");
    if (file.study !== study.study) return fail("These answers belong to another page.");
    const known = new Set(study.showings.map(showing => showing.id));
    const good = (value, most) => Number.isInteger(value) && value >= 1 && value <= most;
    const found = {}, times = {};
    for (const {id, score, confidence, seconds: spent, at: when} of file.answers) {
      if (!known.has(id) || !good(score, LEVELS.score)) return fail("This file is damaged: an answer does not fit this page.");
      found[id] = {score, confidence: good(confidence, LEVELS.confidence) ? confidence : null, at: String(when)};
      times[id] = Number(spent) || 0;
    }
    fail("");
    open(file.rater, found, times);
  }

  // ---- the three screens

  function screen(name) {
    for (const id of ["start", "rate", "done"]) at(id).hidden = id !== name;
    window.scrollTo(0, 0);
  }

  function greet() {
    const found = Object.values(stored(at("rater").value).answers || {}).filter(answer => answer.score && answer.confidence);
    at("found").textContent = found.length ? `${found.length} of ${total} are rated already; you go on from there.` : "";
    at("begin").textContent = found.length ? "Continue" : "Start";
  }

  function open(name, found, times) {
    rater = plain(name);
    const saved = stored(rater);
    answers = saved.answers || {};
    seconds = {...times, ...saved.seconds};
    order = orderFor(rater);
    merge(found);
    keep();
    const first = firstOpen();
    if (first < 0) return finish();
    screen("rate");
    show(first);
  }

  function finish() {
    clock();
    screen("done");
    since = null;
    keep();
    at("text").value = exported();
    at("save-all").focus();
    say(`All ${total} images are rated`);
  }

  // Books the time for which the image in view could be seen.
  function clock() {
    const now = performance.now(), id = order[here].id;
    if (since !== null) seconds[id] = (seconds[id] || 0) + (now - since) / 1000;
    since = document.hidden || at("rate").hidden ? null : now;
  }

  function show(i) {
    clock();
    here = i;
    at("image").src = study.pictures[order[i].picture];
    at("image").alt = `Image ${i + 1} of ${total}`;
    at("image").animate([{opacity: 0}, {opacity: 1}], 150); // so that the change is seen
    paint();
    say(`Image ${i + 1} of ${total}. ${spoken(order[i])}`);
  }

  const spoken = showing => {
    const answer = answers[showing.id] || {};
    return ["score", "confidence"].filter(kind => answer[kind]).map(kind => label(kind, answer[kind])).join(", ");
  };
  const label = (kind, value) => {
    const button = document.querySelector(`[data-${kind}="${value}"]`);
    return (kind === "score" ? `${value} ` : "") + button.lastElementChild.textContent;
  };

  function paint() {
    const answer = answers[order[here].id] || {}, done = rated();
    for (const kind of ["score", "confidence"])
      for (const button of document.querySelectorAll(`[data-${kind}]`))
        button.setAttribute("aria-pressed", String(Number(button.dataset[kind]) === answer[kind]));
    at("count").textContent = `${here + 1} of ${total}`;
    at("name").textContent = rater;
    at("progress").setAttribute("aria-valuenow", String(done));
    at("progress").firstElementChild.style.width = `${100 * done / total}%`;
    at("back").disabled = here === 0;
    at("next").disabled = !complete(order[here]);
    at("hint").textContent = kept ? "" : "This browser keeps nothing: save your answers before you close the page.";
  }

  function say(text) { at("says").textContent = text; }

  // ---- answering

  function give(kind, value) {
    const id = order[here].id, before = complete(order[here]);
    clock();
    answers[id] = {score: null, confidence: null, ...answers[id], [kind]: value, at: new Date().toISOString()};
    unsaved = true;
    keep();
    paint();
    say(label(kind, value));
    if (complete(order[here]) && !before) next(); // a change of an earlier answer stays in view
  }

  function next() {
    if (!complete(order[here])) {
      const answer = answers[order[here].id] || {};
      at("hint").textContent = answer.score ? "Say how sure you are first." : "Give a score first.";
      return;
    }
    if (here + 1 < total && (firstOpen() < 0 || here < firstOpen())) return show(here + 1);
    if (firstOpen() < 0) finish();
    else show(firstOpen());
  }

  function back() { if (here > 0) show(here - 1); }

  // Takes back the last answer: of this image, or else of the one before.
  function undo() {
    const given = () => answers[order[here].id] || {};
    if (!given().score && !given().confidence && here > 0) show(here - 1);
    const kind = given().confidence ? "confidence" : "score";
    if (!given()[kind]) return;
    answers[order[here].id] = {...given(), [kind]: null, at: new Date().toISOString()};
    unsaved = true;
    keep();
    paint();
    say(`Taken back. Image ${here + 1} of ${total}. ${spoken(order[here])}`);
  }

  // ---- what people do

  // The sign on the key; where the layout is not Latin, the key's place.
  const keyOf = event => event.key.length > 1 || /^[ -~]$/.test(event.key)
    ? event.key : event.code.replace(/^(Key|Digit|Numpad)/, "");
  const choices = [...document.querySelectorAll(".row button")];

  document.addEventListener("keydown", event => {
    if (at("rate").hidden || event.ctrlKey || event.altKey || event.metaKey || event.repeat) return;
    const key = keyOf(event), choice = choices.find(button => button.getAttribute("aria-keyshortcuts") === key.toLowerCase());
    if (choice) choice.click();
    else if (key === "Backspace") undo();
    else if (key === "ArrowLeft") back();
    else if (key === "ArrowRight" || (key === "Enter" && !(event.target instanceof HTMLButtonElement))) next();
    else return;
    event.preventDefault();
  });

  for (const kind of ["score", "confidence"])
    for (const button of document.querySelectorAll(`[data-${kind}]`))
      button.addEventListener("click", event => {
        if (event.detail) button.blur(); // after a mouse or a finger, Enter goes on rather than pressing it again
        give(kind, Number(button.dataset[kind]));
      });
  at("back").addEventListener("click", back);
  at("next").addEventListener("click", next);
  at("save").addEventListener("click", event => { if (event.detail) at("save").blur(); save(); });
  at("save-all").addEventListener("click", save);
  at("review").addEventListener("click", () => { screen("rate"); show(0); });
  at("who").addEventListener("submit", event => {
    event.preventDefault();
    if (plain(at("rater").value)) open(at("rater").value);
  });
  at("rater").addEventListener("input", greet);
  at("load").addEventListener("change", async event => {
    const [file] = event.target.files;
    if (file) load(await file.text());
    event.target.value = "";
  });
  document.addEventListener("visibilitychange", () => {
    if (at("rate").hidden) return;
    clock();
    keep();
  });
  window.addEventListener("beforeunload", event => { if (unsaved && !kept) event.preventDefault(); });

  try { at("rater").value = localStorage.getItem(shelf) || ""; } catch { /* open() will find out, and say so */ }
  greet();
  screen("start");
  at("rater").focus();
  at("rater").select(); // another rater types over the last one's name
})();
