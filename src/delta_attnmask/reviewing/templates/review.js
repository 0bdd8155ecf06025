"use strict";

// Sends every answer at once, and shows what the server sends back: the next question, or the next pair.
(() => {
  const KEYS = { 1: "first", 2: "second", 0: "equal", "?": "unknown" };
  const UNDO = ["ArrowLeft", "Backspace"];
  const RETRY_MS = 1500;
  const HARDLY_PX = 8;
  const byId = (id) => document.getElementById(id);
  let isBusy = false;

  // crypto.randomUUID is missing on a page that is served without TLS to another machine.
  const makeNonce = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (n) => n.toString(16).padStart(2, "0")).join("");
  const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
  const say = (text) => { byId("status").textContent = text; };

  const warn = (text) => {
    byId("trouble").textContent = text;
    byId("trouble").hidden = text === "";
  };

  // The page's own policy, no referrer at all, may make a browser withhold the origin that the server asks for.
  const post = (path, values) =>
    fetch(path, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(values),
      referrerPolicy: "same-origin",
    });

  // Tries until the server has it; the nonce keeps an answer from counting twice. Null where trying again can't help.
  const deliver = async (path, values) => {
    const body = { ...values, nonce: makeNonce() };
    for (;;) {
      let why = "the server doesn't answer";
      try {
        const response = await post(path, body);
        if (response.ok) {
          warn("");
          return await response.text();
        }
        why = await response.text();
        if (response.status < 500) {
          warn(`Not saved: ${why}. Please load the page again.`);
          return null;
        }
      } catch {
        // no connection: the server was stopped, or the network is gone
      }
      warn(`Not saved yet: ${why}. Trying again; please leave this page open.`);
      await wait(RETRY_MS);
    }
  };

  const preload = () => {
    const ahead = byId("pair")?.dataset.ahead;
    for (const address of ahead ? ahead.split(" ") : []) new Image().src = address;
  };

  // Whether a part of the pair lies under the panel that asks.
  const tellWhetherItContinues = () => {
    const pair = byId("pair");
    const hidden = pair ? pair.getBoundingClientRect().bottom - byId("ask").getBoundingClientRect().top : 0;
    byId("ask").classList.toggle("continues", hidden > HARDLY_PX);
  };

  // A further question about the same pair leaves its texts and images as they are, scrolled as they are.
  const show = (html) => {
    const parsed = new DOMParser().parseFromString(html, "text/html");
    const pair = byId("pair");
    const next = parsed.getElementById("pair");
    if (pair && next && pair.dataset.pair === next.dataset.pair) {
      byId("ask").replaceWith(document.adoptNode(parsed.getElementById("ask")));
    } else {
      byId("review").replaceChildren(...[...parsed.body.children].map((node) => document.adoptNode(node)));
      scrollTo({ top: 0, behavior: "instant" });
      preload();
    }
    tellWhetherItContinues();
    byId("ask").focus({ preventScroll: true });
    say(byId("ask").dataset.status);
  };

  const send = async (path, values) => {
    if (isBusy) return;
    isBusy = true;
    byId("ask").setAttribute("aria-busy", "true");
    const html = await deliver(path, values);
    isBusy = false;
    byId("ask").removeAttribute("aria-busy");
    if (html !== null) show(html);
  };

  const judge = (answer) => {
    const pair = byId("pair");
    if (pair) send("/judge", { pair: pair.dataset.pair, question: byId("ask").dataset.question, answer });
  };
  const undo = () => {
    if (!byId("undo").disabled) send("/undo", {});
  };

  const startJudging = () => {
    document.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (button?.dataset.answer) judge(button.dataset.answer);
      else if (button?.id === "undo") undo();
      else if (button?.id === "further") scrollBy({ top: innerHeight / 2 });
    });
    // A key that is held down must not judge pairs that nobody has seen.
    document.addEventListener("keydown", (event) => {
      if (event.repeat || event.ctrlKey || event.altKey || event.metaKey) return;
      const isUndo = UNDO.includes(event.key);
      if (!isUndo && !(event.key in KEYS)) return;
      event.preventDefault();
      if (isUndo) undo();
      else judge(KEYS[event.key]);
    });
    byId("leave").addEventListener("click", async () => {
      await post("/leave", {});
      location.reload();
    });
    addEventListener("scroll", tellWhetherItContinues, { passive: true });
    new ResizeObserver(tellWhetherItContinues).observe(byId("review"));
    say(byId("ask").dataset.status);
    preload();
  };

  const startEntering = () => {
    byId("enter").addEventListener("submit", async (event) => {
      event.preventDefault();
      try {
        const response = await post("/enter", { name: byId("name").value });
        if (response.ok) location.reload();
        else warn(await response.text());
      } catch {
        warn("The server doesn't answer. Is it still running?");
      }
    });
  };

  if (byId("review")) startJudging();
  else startEntering();
})();
