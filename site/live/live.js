// Distilled models in the page: onnxruntime-web on WebAssembly, one thread, files of this folder alone.

const $ = (id) => document.getElementById(id);
const made = (tag, properties) => Object.assign(document.createElement(tag), properties);
const MB = (bytes) => (bytes / 1e6).toFixed(1);
const HUES = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6d00"];

async function fetched(file) {
  const answer = await fetch(new URL(file, import.meta.url));
  if (!answer.ok) throw new Error(`${file} is not beside this page (status ${answer.status})`);
  return answer.arrayBuffer();
}
const floats = async (file) => new Float32Array(await fetched(file));

/** n unit normals, by Box and Muller. */
function normals(n) {
  const z = new Float32Array(n);
  for (let i = 0; i < n; i += 2) {
    const radius = Math.sqrt(-2 * Math.log(1 - Math.random())), angle = 2 * Math.PI * Math.random();
    z.set([radius * Math.cos(angle), radius * Math.sin(angle)].slice(0, n - i), i);
  }
  return z;
}

const size = (shape) => shape.reduce((a, b) => a * b, 1);

let ort;
/** A session of a model; the first call loads the runtime. */
async function open(model) {
  ort ??= await import("./ort.wasm.min.mjs");
  ort.env.wasm.numThreads = 1; // more need headers that a plain server does not send
  ort.env.wasm.wasmPaths = new URL("./", import.meta.url).href;
  // 8-bit weights become float32 once, as the file is loaded, and not at every picture
  return ort.InferenceSession.create(new Uint8Array(await fetched(model.file)), { extra: { session: { disable_quant_qdq: "1" } } });
}
const real = (values, shape) => new ort.Tensor("float32", Float32Array.from(values), shape);
const whole = (values, shape) => new ort.Tensor("int64", BigInt64Array.from(values, BigInt), shape);

/** The one output of a graph, and the milliseconds that it took. */
async function run(session, feeds) {
  const start = performance.now(), answer = await session.run(feeds);
  return [answer[session.outputNames[0]].data, performance.now() - start];
}

function caption(node, text) {
  node.parentElement.querySelector("figcaption").textContent = text;
  if (node.tagName === "CANVAS") node.setAttribute("aria-label", text);
}

/** A picture (3, side, side) in [0, 1] on a canvas. */
function paint(canvas, data, side) {
  const image = new ImageData(side, side), n = side * side;
  for (let i = 0; i < n; i++) {
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = Math.round(255 * data[c * n + i]);
    image.data[4 * i + 3] = 255;
  }
  canvas.width = canvas.height = side;
  canvas.getContext("2d").putImageData(image, 0, 0);
}

/** Points (n, 2) in their classes' colours; the panel shows [-2.5, 2.5] in both directions. */
function scatter(canvas, z, label) {
  const side = (canvas.width = canvas.height = 480), at = (v) => ((v + 2.5) / 5) * side;
  const context = canvas.getContext("2d");
  context.globalAlpha = 0.6;
  label.forEach((k, i) => {
    context.fillStyle = HUES[k % HUES.length];
    context.beginPath();
    context.arc(at(z[2 * i]), side - at(z[2 * i + 1]), 3.5, 0, 2 * Math.PI);
    context.fill();
  });
}

const counted = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;
const cost = (steps, evaluations, ms) =>
  `${counted(steps, "step")}, ${counted(evaluations, "evaluation")}, ${ms.toFixed(ms < 10 ? 1 : 0)} ms`;
/** Steps of a guided pair, two evaluations each, within as many evaluations; one step at least. */
const pairSteps = (evaluations) => Math.max(1, Math.floor(evaluations / 2));

/** A section: a button loads its models (`ready`), and its picture follows its settings (`draw`). Returns what redraws. */
function section(name, files, ready, draw) {
  const button = $(`${name}-load`), state = $(name).dataset, tell = (text) => ($(`${name}-status`).textContent = text);
  let drawing = false, again = false;
  /** Draw; what is asked for meanwhile is drawn afterwards, once. */
  async function redraw() {
    again = drawing;
    if (drawing) return;
    drawing = true;
    try {
      do {
        again = false;
        await new Promise(requestAnimationFrame); // sliders answer first
        await draw();
        state.drawn++;
      } while (again);
    } catch (error) {
      tell(`Drawing has failed: ${error.message}`);
    }
    drawing = false;
  }
  const bytes = files.reduce((sum, file) => sum + file.bytes, 0);
  button.textContent = `Load ${MB(bytes)} MB, and once ${MB(table.runtime)} MB of runtime`;
  button.disabled = false;
  button.addEventListener("click", async () => {
    button.disabled = true;
    tell("Loading ..");
    const start = performance.now();
    try {
      await ready();
      button.hidden = true;
      $(`${name}-controls`).disabled = false;
      tell(`Loaded in ${((performance.now() - start) / 1000).toFixed(1)} s.`);
      await redraw();
    } catch (error) {
      button.disabled = false;
      tell(`This browser cannot run the models: ${error.message}`);
    }
  });
  return redraw;
}

function slider(id, shown, redraw) {
  const show = () => ($(`${id}-value`).textContent = shown(+$(id).value));
  show();
  $(id).addEventListener("input", () => { show(); redraw(); });
}

/** The noise of a section: the stored one, the same in every browser, until a button draws new one. */
function noises(name, count, redraw) {
  const noise = {};
  $(`${name}-stored`).addEventListener("click", () => { noise.now = noise.stored; redraw(); });
  $(`${name}-new`).addEventListener("click", () => { noise.now = normals(count); redraw(); });
  return noise;
}

const options = (select, texts) => texts.forEach((text, i) => select.append(new Option(text, i)));

function points(part) {
  const sessions = {}, label = Array.from({ length: part.n }, (_, i) => i % part.classes);
  const counts = Object.keys(part.students).map(Number).sort((a, b) => a - b);
  const ready = async () => {
    sessions.teacher = await open(part.teacher);
    for (const n of counts) sessions[n] = await open(part.students[n]);
    noise.now = noise.stored = await floats(part.noise);
  };
  /** The sampler: n steps of a graph of one step, over evenly spaced times. */
  async function walk(session, n, w) {
    const given = { label: whole(label, [part.n]), w: real(Array(part.n).fill(w), [part.n]) };
    const time = (i) => whole([(part.T * i) / n], []);
    let z = noise.now, total = 0, ms;
    for (let i = n; i > 0; i--) {
      [z, ms] = await run(session, { z: real(z, [part.n, 2]), t: time(i), s: time(i - 1), ...given });
      total += ms;
    }
    return [z, total];
  }
  const redraw = section("points", [part.teacher, ...Object.values(part.students)], ready, async () => {
    const w = +$("points-w").value, n = counts[+$("points-steps").value], half = pairSteps(n);
    const [truth, longest] = await walk(sessions.teacher, part.many, w);
    const distance = (z) => Math.sqrt(z.reduce((sum, v, i) => sum + (v - truth[i]) ** 2, 0) / part.n).toFixed(2);
    const [student, ms] = await walk(sessions[n], n, w);
    const [teacher, other] = await walk(sessions.teacher, half, w);
    for (const [panel, z] of Object.entries({ truth, student, teacher })) scatter($(`points-${panel}`), z, label);
    caption($("points-truth"), `Teacher: ${cost(part.many, 2 * part.many, longest)}`);
    caption($("points-student"), `Student: ${cost(n, n, ms)}; distance ${distance(student)}`);
    caption($("points-teacher"), `Teacher: ${cost(half, 2 * half, other)}; distance ${distance(teacher)}`);
  });
  slider("points-w", (w) => w.toFixed(1), redraw);
  slider("points-steps", (i) => counts[i], redraw);
  const noise = noises("points", 2 * part.n, redraw);
}

function pixels(part) {
  let student, teacher;
  const kinds = [["shape", part.shapes], ["color", part.colors], ["texture", part.textures]];
  const ready = async () => {
    [student, teacher] = [await open(part.student), await open(part.teacher)];
    noise.now = noise.stored = await floats(part.noise);
  };
  const chosen = (kind) => +document.querySelector(`input[name="pixels-${kind}"]:checked`).value;
  const redraw = section("pixels", [part.student, part.teacher], ready, async () => {
    const label = kinds.reduce((sum, [kind, words]) => sum * words.length + chosen(kind), 0);
    const w = +$("pixels-w").value, n = +$("pixels-steps").value, half = pairSteps(n);
    const feeds = (steps) => ({
      label: whole([label], [1]), noise: real(noise.now, [1, ...part.shape]), w: real([w], [1]), steps: whole([steps], []),
    });
    const [left, ms] = await run(student, feeds(n));
    paint($("pixels-student"), left, part.side);
    caption($("pixels-student"), `Student, ${part.names[label]}: ${cost(n, n, ms)}`);
    const [right, other] = await run(teacher, feeds(half));
    paint($("pixels-teacher"), right, part.side);
    caption($("pixels-teacher"), `Teacher, the pair: ${cost(half, 2 * half, other)}`);
  });
  for (const [kind, words] of kinds) {
    words.forEach((word, i) => {
      const label = made("label", {});
      label.append(made("input", { type: "radio", name: `pixels-${kind}`, value: i, checked: i === 0 }), word);
      $(`pixels-${kind}`).append(label);
    });
    $(`pixels-${kind}`).addEventListener("change", redraw);
  }
  slider("pixels-w", (w) => w.toFixed(1), redraw);
  slider("pixels-steps", (n) => n, redraw);
  const noise = noises("pixels", size(part.shape), redraw);
}

function prompts(part) {
  const steps = part.teacher.steps;
  let student, stored, noise, example = 0;
  const ready = async () => {
    [student, stored] = [await open(part.graph), await floats(part.noise)];
    take(0);
  };
  const kinds = Object.entries({
    size: ["not small", "small"], texture: part.textures, color: part.colors, shape: part.shapes,
  });
  function noun(side) {
    const at = kinds.map(([kind, words]) => [words, +$(`prompts-${side}-${kind}`).value]);
    const words = at.flatMap(([words, i], k) => (k < 2 && i === 0 ? [] : words[i])); // not small and plain are not said
    return [/^[aeiou]/.test(words[0]) ? "an" : "a", ...words].join(" ");
  }
  const prompt = () =>
    part.phrasings[+$("prompts-phrasing").value].replace("{first}", noun("left")).replace("{second}", noun("right"));
  async function one(canvas, z) {
    const { start, end, length, ids } = part.tokens, known = [start, ...prompt().split(" ").map((word) => ids[word])];
    const padded = known.concat(Array(length - known.length).fill(end));
    const [picture, ms] = await run(student, { ids: whole(padded, [1, length]), noise: real(z, [1, ...part.shape]) });
    paint(canvas, picture, part.side);
    return ms;
  }
  /** Words, noise and the teacher's picture of an example. */
  function take(number) {
    const { left, right, picture } = part.examples[number];
    for (const [side, values] of [["left", left], ["right", right]])
      kinds.forEach(([kind]) => ($(`prompts-${side}-${kind}`).value = values[kind]));
    $("prompts-phrasing").value = 0;
    noise = stored.slice(number * size(part.shape), (number + 1) * size(part.shape));
    example = picture;
  }
  const redraw = section("prompts", [part.graph], ready, async () => {
    const text = ($("prompts-text").textContent = prompt()), teacher = $("prompts-teacher").querySelector("img");
    const unseen = part.unseen.filter((pair) => ["left", "right"].some((side) => noun(side).endsWith(pair)));
    $("prompts-unseen").textContent = unseen.length ? `No training has seen a ${unseen.join(" or a ")}.` : "";
    $("prompts-teacher").hidden = !example;
    if (example) {
      Object.assign(teacher, { src: example, alt: `the teacher's picture: ${text}` });
      caption(teacher, `Teacher, drawn before: ${steps} steps, ${2 * steps} evaluations`);
    }
    const ms = await one($("prompts-student"), noise);
    caption($("prompts-student"), `Student: ${cost(1, 1, ms)}`);
  });
  const change = () => { example = 0; redraw(); };
  for (const side of ["left", "right"]) {
    for (const [kind, words] of kinds) {
      const select = made("select", { id: `prompts-${side}-${kind}`, ariaLabel: `${kind}, ${side}` });
      options(select, words);
      $(`prompts-${side}`).append(select);
    }
  }
  options($("prompts-phrasing"), part.phrasings.map((text) => text.replace("{first}", "A").replace("{second}", "B")));
  $("prompts-controls").addEventListener("change", change);
  part.examples.forEach((_, i) => {
    const button = made("button", { type: "button", id: `prompts-example-${i}`, textContent: `Example ${i + 1}` });
    button.addEventListener("click", () => { take(i); redraw(); });
    $("prompts-examples").append(button);
  });
  $("prompts-teacher-steps").textContent = steps;
  $("prompts-teacher").hidden = true;
  $("prompts-draw").addEventListener("click", () => { noise = normals(size(part.shape)); change(); });
  $("prompts-thirty").addEventListener("click", async ({ target }) => {
    target.disabled = true;
    $("prompts-grid").replaceChildren();
    let total = 0;
    for (let i = 1; i <= 30; i++) {
      const canvas = made("canvas", { role: "img", ariaLabel: prompt() });
      total += await one(canvas, normals(size(part.shape)));
      $("prompts-grid").append(canvas);
      $("prompts-thirty-time").textContent =
        `${counted(i, "picture")} in ${(total / 1000).toFixed(1)} s, ${(total / i).toFixed(0)} ms each.`;
      await new Promise(requestAnimationFrame);
    }
    target.disabled = false;
  });
}

const missing = $("missing");
let table;
if (typeof WebAssembly !== "object") {
  missing.textContent = "This browser has no WebAssembly, on which the models run: switch it on, or take another browser.";
} else {
  try {
    table = JSON.parse(new TextDecoder().decode(await fetched("live.json")));
    points(table.points);
    pixels(table.pixels);
    prompts(table.prompts);
    missing.hidden = true;
  } catch (error) {
    missing.textContent = `Nothing can be drawn: ${error.message}; make the page by “make live”.`;
  }
}
