"use strict";

// Shows the first pair that lacks an answer, keeps each answer in this browser, and saves them all as a file.
(() => {
  const KEYS = { 1: "first", 2: "second", 0: "equal", "?": "unknown" };
  const UNDO = ["ArrowLeft", "Backspace"];
  const FORMAT = "delta-attnmask-answers";
  const HARDLY_PX = 8;
  const DOUBLE_TAP_MS = 200;
  const byId = (id) => document.getElementById(id);
  const { review, questions, labels } = JSON.parse(byId("protocol").textContent);
  const pairs = [...document.querySelectorAll("template.pair")];
  const PREFIX = `delta-attnmask/${review}/`;
  let rater = "";
  let answers = []; // of this rater, in the order in which they were given
  let shownAt = 0;

  const warn = (text) => {
    byId("trouble").textContent = text;
    byId("trouble").hidden = text === "";
  };

  // A browser may refuse to keep anything; the answers then live as long as the page.
  const recall = (key) => {
    try {
      return JSON.parse(localStorage.getItem(PREFIX + key));
    } catch {
      return null;
    }
  };
  const keep = (key, value) => {
    try {
      localStorage.setItem(PREFIX + key, JSON.stringify(value));
      warn("");
    } catch {
      warn("This browser keeps no answers. Save the file before you close this page.");
    }
  };

  const answersKey = () => `answers/${rater.toLowerCase()}`;
  const isAnswer = (one) => ["pair", "question", "answer", "at"].every((name) => typeof one?.[name] === "string");
  // Another tab may have added answers to the same review.
  const refresh = () => {
    const kept = recall(answersKey());
    if (Array.isArray(kept)) answers = kept.filter(isAnswer);
  };

  const answerTo = (pair, question) =>
    answers.find((one) => one.pair === pair.dataset.pair && one.question === question.name)?.answer;
  const isJudged = (pair) => questions.every((question) => answerTo(pair, question));
  const findNext = () => pairs.find((pair) => !isJudged(pair));

  // Whether a part of the pair lies under the panel that asks.
  const markWhetherItContinues = () => {
    const hidden = byId("pair").getBoundingClientRect().bottom - byId("ask").getBoundingClientRect().top;
    byId("ask").classList.toggle("continues", hidden > HARDLY_PX);
  };

  const showPair = (pair) => {
    if (byId("pair").dataset.pair === pair.dataset.pair) return; // stays as it is, scrolled as it is
    if (byId("whole").matches(":popover-open")) byId("whole").hidePopover();
    byId("pair").dataset.pair = pair.dataset.pair;
    byId("pair").setAttribute("aria-label", `Pair ${pairs.indexOf(pair) + 1} of ${pairs.length}`);
    byId("pair").replaceChildren(pair.content.cloneNode(true));
    scrollTo({ top: 0, behavior: "instant" });
  };

  const showSteps = (pair, now) => {
    const steps = questions.map((question) => {
      const step = document.createElement("li");
      const given = answerTo(pair, question);
      step.className = question === now ? "now" : given ? "done" : "";
      if (question === now) step.setAttribute("aria-current", "step");
      step.append(question.name);
      if (given) {
        const said = document.createElement("span");
        said.className = "given";
        said.textContent = `: ${labels[given]}`;
        step.append(said);
      }
      return step;
    });
    byId("steps").replaceChildren(...steps);
  };

  const showQuestion = (pair) => {
    const question = questions.find((one) => !answerTo(pair, one));
    const place = `Pair ${pairs.indexOf(pair) + 1} of ${pairs.length}`;
    showSteps(pair, question);
    byId("ask").dataset.question = question.name;
    byId("question").textContent = question.text;
    byId("hint").textContent = question.hint;
    byId("count").textContent = place;
    byId("progress").value = pairs.filter(isJudged).length;
    byId("status").textContent = `${place}, question ${questions.indexOf(question) + 1} of ${questions.length}: ${question.text}`;
  };

  const show = () => {
    const pair = findNext();
    byId("review").hidden = !pair;
    byId("done").hidden = Boolean(pair);
    byId("rater").textContent = rater;
    for (const button of document.querySelectorAll("[data-act=undo]")) button.disabled = answers.length === 0;
    if (pair) {
      showPair(pair);
      showQuestion(pair);
      markWhetherItContinues();
    } else {
      byId("status").textContent = byId("done").querySelector("h2").textContent;
    }
    byId(pair ? "ask" : "done").focus({ preventScroll: true });
    shownAt = performance.now();
  };

  const judge = (answer) => {
    refresh();
    const { pair } = byId("pair").dataset;
    const { question } = byId("ask").dataset;
    if (byId("review").hidden) return;
    answers = answers.filter((one) => one.pair !== pair || one.question !== question);
    answers.push({ pair, question, answer, at: new Date().toISOString() });
    keep(answersKey(), answers);
    show();
  };

  const undo = () => {
    refresh();
    answers.pop();
    keep(answersKey(), answers);
    show();
  };

  const save = () => {
    refresh();
    const text = JSON.stringify({ format: FORMAT, review, rater, answers }, null, 1);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
    link.download = `answers-${rater.replace(/[^\p{L}\p{N}]+/gu, "-")}.json`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  };

  const enter = (name) => {
    rater = name;
    answers = [];
    refresh();
    keep("rater", rater);
    byId("welcome").hidden = true;
    document.body.classList.add("judging");
    document.querySelector(".help").open = false;
    document.querySelector("[data-act=leave]").hidden = false;
    show();
  };

  const leave = () => {
    keep("rater", "");
    location.reload();
  };

  const enlarge = (button) => {
    byId("enlarged").replaceChildren(button.querySelector("img").cloneNode(true));
    byId("whole").showPopover();
  };

  const acts = { undo, save, leave };
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.dataset.answer && event.timeStamp - shownAt > DOUBLE_TAP_MS) judge(button.dataset.answer);
    else if (button.dataset.act) acts[button.dataset.act]();
    else if (button.id === "further") scrollBy({ top: innerHeight / 2 });
    else if (button.classList.contains("enlarge")) enlarge(button);
  });
  // A key that is held down must not judge pairs that nobody has seen.
  document.addEventListener("keydown", (event) => {
    if (!rater || event.repeat || event.ctrlKey || event.altKey || event.metaKey) return;
    const isUndo = UNDO.includes(event.key);
    if (!isUndo && !(event.key in KEYS)) return;
    event.preventDefault();
    if (isUndo) undo();
    else judge(KEYS[event.key]);
  });
  addEventListener("scroll", markWhetherItContinues, { passive: true });
  new ResizeObserver(markWhetherItContinues).observe(byId("review"));

  const tidy = (name) => name.normalize("NFC").split(/\s+/).join(" ").replace(/\p{C}/gu, "").trim();
  byId("enter").addEventListener("submit", (event) => {
    event.preventDefault();
    const name = tidy(byId("name").value);
    if (name) enter(name);
  });
  // Until here the form is disabled, so that no name is typed before something listens.
  for (const field of byId("enter").elements) field.disabled = false;
  const before = recall("rater");
  if (typeof before === "string" && before) enter(before);
  else byId("name").focus();
})();
