// The voting page: two pictures of the same prompt and seed, and which is better. All by keys: 1 or ←, 2 or →, 3 or ↓ for a tie, 4 or x where
// both are bad, u takes the last vote back. Nothing here knows which checkpoints they are, and strengths are shown only to those who ask.
(() => {
  "use strict";

  const { el, setText, remember, recall, sharpen } = window.cmpDom;
  const { up, run, name: runName, closed } = document.body.dataset;
  const root = document.getElementById("vote");
  const KEYS = { 1: "left", ArrowLeft: "left", 2: "right", ArrowRight: "right", 3: "tie", ArrowDown: "tie", 4: "bad", x: "bad", X: "bad" };
  const ANSWERS = [["left", "1 is better", "1 ←"], ["right", "2 is better", "2 →"], ["tie", "Tie", "3 ↓"], ["bad", "Both are bad", "4 x"]];
  const SAID = { left: "You chose picture 1.", right: "You chose picture 2.", tie: "You called it a tie.", bad: "You said both are bad." };
  const SLOW = 300; // ms after which it is said that something is waited for

  let voter = recall("cmp-voter", "").trim();
  let now = null; // the pair before the voter
  let busy = true;
  let asked = false; // whether the strengths were asked for

  const ask = async (what, told) => {
    const sent = told ? { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(told) } : {};
    const answer = await fetch(`${up}cmp/ballot/${what}`, sent);
    const value = await answer.json().catch(() => ({}));
    if (answer.ok) return value;
    throw Object.assign(new Error([value.detail?.error, value.detail?.hint].filter(Boolean).join(". ") || `The server answered ${answer.status}.`), { status: answer.status });
  };

  const title = el("h1", { text: runName });
  const who = el("span", { class: "who" });
  const change = el("button", { type: "button", class: "quiet", text: "Change name", click: () => askName() });
  const prompt = el("p", { class: "prompt" });
  const pictures = ["left", "right"].map((side, i) => {
    const img = el("img", { alt: `Picture ${i + 1}`, draggable: "false" });
    const frame = el("button", { type: "button", class: "picture", "data-side": side, "aria-label": `Picture ${i + 1} is better`, click: () => vote(side) },
      el("span", { class: "number", "aria-hidden": "true", text: String(i + 1) }), img);
    return { side, img, frame };
  });
  const answers = ANSWERS.map(([outcome, label, keys]) => el("button", { type: "button", class: "answer", "data-outcome": outcome, click: () => vote(outcome) },
    el("span", { text: label }), el("kbd", { text: keys })));
  const back = el("button", { type: "button", class: "quiet", "data-back": "", click: () => takeBack() }, el("span", { text: "Take back the last vote " }), el("kbd", { text: "u" }));
  const progress = el("p", { class: "progress", "aria-live": "polite" });
  const said = el("p", { class: "said", role: "status" });
  const fault = el("p", { class: "fault", role: "alert", hidden: "" });
  const again = el("button", { type: "button", class: "quiet", text: "Try again", hidden: "", click: () => next() });
  const reveal = el("button", { type: "button", class: "quiet", "data-reveal": "", text: "Show the strengths", click: () => showStrengths() });
  const warned = el("small", { text: "Knowing them may sway you: vote first." });
  const strengths = el("section", { class: "strengths", "aria-label": "Strengths by the votes so far", hidden: "" });
  const pair = el("div", { class: "pair" }, ...pictures.map(({ frame }) => frame));
  const bar = el("div", { class: "answers" }, ...answers);
  const stage = el("div", { class: "stage", hidden: "" }, el("p", { class: "question", text: "Which picture is better?" }), prompt, pair, bar, el("div", { class: "below" }, progress, back));
  const foot = el("footer", {}, reveal, warned, strengths);
  const form = el("form", { class: "name", hidden: "" },
    el("label", { for: "voter", text: "Your name, under which your votes are kept" }),
    el("div", {}, el("input", { id: "voter", autocomplete: "nickname", maxlength: "100", required: "" }), el("button", { type: "submit", class: "answer", text: "Start voting" })));
  root.append(
    el("header", {}, title, el("span", { class: "voter" }, who, change)), form, fault, again, said, stage, foot);

  const lock = (on) => {
    busy = on;
    stage.setAttribute("aria-busy", String(on));
    for (const node of [...answers, back, ...pictures.map((one) => one.frame)]) node.setAttribute("aria-disabled", String(on));
  };

  // What this voter has done and has left comes first; then all votes, and of which checkpoints there are no pictures.
  const tell = ({ mine, votes, voters, pairs, left, pictured, checkpoints, more }) => {
    const many = (count, what) => `${count.toLocaleString("en")} ${what}${count === 1 ? "" : "s"}`;
    const done = pairs - left;
    const own = left === 0 ? `You have voted on ${pairs === 1 ? "the only pair" : `all ${pairs} pairs`} of pictures; from here on they come again, and count again.`
      : done ? `You have voted on ${done} of ${many(pairs, "pair")} of pictures, ${left} ${left === 1 ? "is" : "are"} left.` : `${many(pairs, "pair")} of pictures to vote on.`;
    const all = !votes ? "No votes yet." : mine === votes ? `${many(votes, "vote")} so far.` : `${many(votes, "vote")} by ${many(voters, "voter")} so far, ${mine} of them yours.`;
    const settles = !votes ? "" : more === 0 ? "They settle it." : more === null ? "How many more would settle it cannot be said yet." : `About ${more.toLocaleString("en")} more might settle it.`;
    const bare = pictured < checkpoints ? `Only ${pictured} of the ${checkpoints} checkpoints have pictures to vote on.` : "";
    setText(progress, [own, all, settles, bare].filter(Boolean).join(" "));
  };

  const fail = (error) => {
    setText(fault, error.message);
    setText(said, "");
    stage.hidden = true;
    again.hidden = false;
  };

  // Both at once: which of them comes first would tell something.
  const show = async (told) => {
    now = told;
    setText(prompt, told.prompt);
    tell(told.progress);
    stage.hidden = false;
    pair.classList.add("is-loading");
    await Promise.all(pictures.map(async ({ side, img }) => {
      img.src = `${up}cmp/ballot/${told.pair}/${side}.webp`;
      await img.decode().catch(() => { throw new Error("A picture could not be loaded."); });
    }));
    for (const { img } of pictures) sharpen(img, img.clientWidth, img.clientHeight);
    pair.classList.remove("is-loading");
    lock(false);
  };

  // `words` are said while it is waited for, `done` once it has come.
  const go = async (asking, words, done = "") => {
    lock(true);
    setText(fault, "");
    again.hidden = true;
    const slow = setTimeout(() => setText(said, words), SLOW);
    try {
      const told = await asking();
      await show(told);
      clearTimeout(slow);
      setText(said, typeof done === "function" ? done(told) : done);
    } catch (error) {
      clearTimeout(slow);
      if (error.status === 404 && now) { now = null; return void next(); } // the server was started anew, or another tab has answered
      fail(error);
    }
  };

  const next = () => go(() => ask("next", { run, voter }), "Looking for two pictures …");

  const vote = (outcome) => {
    if (busy || !now) return;
    for (const { side, frame } of pictures) frame.classList.toggle("is-chosen", side === outcome);
    setTimeout(() => { for (const { frame } of pictures) frame.classList.remove("is-chosen"); }, 250);
    const told = { pair: now.pair, voter, outcome };
    go(() => ask("cast", told), "Keeping your vote …", SAID[outcome]).then(() => { if (asked) showStrengths(); });
  };

  const takeBack = () => {
    if (busy || !now) return;
    go(() => ask("back", { run, voter }), "Taking it back …", (told) => (told.taken ? "The last vote is taken back: here is its pair again." : "There is no vote of yours to take back."))
      .then(() => { if (asked) showStrengths(); });
  };

  const percent = (value) => (value === null ? "–" : `${Math.round(100 * value)} %`);

  const row = (one) => {
    const bar = el("div", { class: "chance", role: "img", "aria-label": one.low === null ? `${percent(one.chance)}, interval not known` : `${percent(one.chance)}, ${percent(one.low)} to ${percent(one.high)} at 95 %` });
    const line = el("i", { class: "range" });
    if (one.low !== null) Object.assign(line.style, { left: `${100 * one.low}%`, width: `${100 * (one.high - one.low)}%` });
    const dot = el("i", { class: "dot" });
    dot.style.left = `${100 * one.chance}%`;
    bar.append(line, dot);
    return el("tr", { class: one.window ? "in-window" : "" }, el("th", { scope: "row", text: one.name }), el("td", { class: "figure", text: percent(one.chance) }), el("td", {}, bar),
      el("td", { class: "figure", text: `${one.won} / ${one.lost} / ${one.tied}` }));
  };

  const showStrengths = async () => {
    reveal.setAttribute("aria-busy", "true");
    try {
      const told = await ask(`strengths?run=${encodeURIComponent(run)}`);
      asked = true;
      const head = ["checkpoint", "preferred", "95 %", "won / lost / tied"].map((text) => el("th", { scope: "col", text }));
      strengths.replaceChildren(
        el("p", { class: "reason", text: told.reason }), ...told.warnings.map((text) => el("p", { class: "note", text })),
        el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Strengths" }, el("table", {}, el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...told.rows.map(row)))));
      setText(reveal, "Look again");
    } catch (error) {
      strengths.replaceChildren(el("p", { class: "note", text: error.message }));
    }
    strengths.hidden = false;
    reveal.removeAttribute("aria-busy");
  };

  const askName = () => {
    stage.hidden = true;
    form.hidden = false;
    who.textContent = "";
    change.hidden = true;
    setText(said, "");
    const box = form.querySelector("input");
    box.value = voter;
    box.focus();
  };

  const begin = () => {
    form.hidden = true;
    change.hidden = false;
    who.textContent = `voting as ${voter}`;
    document.activeElement?.blur(); // keys are for votes now
    next();
  };

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const text = form.querySelector("input").value.trim();
    if (!text) return;
    voter = text;
    remember("cmp-voter", voter);
    begin();
  });

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || stage.hidden || event.target.closest?.("input, textarea")) return;
    if (event.key === "u" || event.key === "U") takeBack();
    else if (KEYS[event.key]) vote(KEYS[event.key]);
    else return;
    event.preventDefault();
  });

  if (closed) {
    change.hidden = true;
    setText(fault, closed);
  } else if (voter) begin();
  else askName();
})();
