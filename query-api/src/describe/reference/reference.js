// Forms that ask the API this page came from. Answers are shown as text, never as markup.
const TOLD = ["etag", "x-data-as-of", "x-model-version", "ratelimit", "x-request-id"];
const EVENTS_SHOWN = 5;

function element(tag, className, text) {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  // What scrolls must be reachable without a mouse.
  if (tag === "pre") made.tabIndex = 0;
  return made;
}

function credentials() {
  const token = sessionStorage.getItem("token");
  if (!token) return {};
  // A token has points or comes from an identity provider; what has none is a key.
  return token.split(".").length === 3 ? { authorization: `Bearer ${token}` } : { "x-api-key": token };
}

/** The request that a form stands for. */
function request(form) {
  const given = (place) => [...form.elements].filter((one) => one.dataset.in === place && one.value.trim() !== "");
  let path = form.dataset.path;
  for (const one of given("path")) path = path.replace(`{${one.name}}`, encodeURIComponent(one.value.trim()));
  // A comma stands for itself, and is read more easily so.
  const escaped = (value) => encodeURIComponent(value.trim()).replaceAll("%2C", ",");
  const query = given("query").map((one) => `${one.name}=${escaped(one.value)}`);
  const filter = Object.fromEntries(given("filter").map((one) => [one.name, one.value.trim()]));
  if (filter.path) query.push(`filter[${filter.path}][${filter.operator}]=${escaped(filter.value ?? "")}`);
  const body = given("body").length ? JSON.stringify(Object.fromEntries(given("body").map((one) => [one.name, one.value]))) : null;
  return { url: path + (query.length ? `?${query.join("&")}` : ""), body, live: form.elements.live !== undefined };
}

function curl({ url, body, live }) {
  const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  const parts = ["curl", "-g"];
  if (live) parts.push("-N", "-H", quoted("Accept: text/event-stream"));
  if (body) parts.push("-H", quoted("Content-Type: application/json"), "-d", quoted(body));
  return [...parts, quoted(location.origin + url)].join(" ");
}

function pretty(text) {
  try { return JSON.stringify(JSON.parse(text), null, 2); } catch { return text; }
}

async function ask(form, answer, signal) {
  const wanted = request(form);
  answer.replaceChildren(element("pre", "", curl(wanted)));
  const headers = { ...credentials() };
  if (wanted.live) headers.accept = "text/event-stream";
  if (wanted.body) headers["content-type"] = "application/json";
  const started = performance.now();
  const response = await fetch(wanted.url, { method: wanted.body ? "POST" : "GET", body: wanted.body, headers, signal });
  const told = element("p", "told", "");
  told.append(element("span", `status ${response.ok ? "good" : "bad"}`, `${response.status} ${response.statusText}`));
  told.append(` in ${(performance.now() - started).toFixed(1)} ms`);
  for (const name of TOLD) if (response.headers.has(name)) told.append(` · ${name}: ${response.headers.get(name)}`);
  answer.append(told);
  if (wanted.live && response.ok) return follow(response.body, answer);
  const text = await response.text();
  answer.append(element("pre", "", pretty(text)));
}

/** Shows the last events of a stream, the newest on top. */
async function follow(stream, answer) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  const shown = [];
  for (let rest = ""; ;) {
    const { value, done } = await reader.read();
    if (done) return;
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      const lines = event.split("\n");
      const of = (name) => lines.filter((line) => line.startsWith(`${name}: `)).map((line) => line.slice(name.length + 2)).join("\n");
      if (!of("event")) continue;
      const pre = element("pre", "", `${of("event")}  ${new Date().toLocaleTimeString()}\n${pretty(of("data"))}`);
      answer.querySelector(".told").after(pre);
      shown.push(pre);
      if (shown.length > EVENTS_SHOWN) shown.shift().remove();
    }
  }
}

function prepare(form) {
  const answer = form.parentElement.querySelector(".answer");
  const button = form.querySelector("button");
  const { path, operator } = form.elements;
  path?.addEventListener("change", () => {
    const words = path.selectedOptions[0].dataset.operators?.split(" ") ?? [];
    operator.replaceChildren(...words.map((word) => element("option", "", word)));
  });
  let running = null;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (running) return running.abort();
    running = new AbortController();
    if (form.elements.live) button.textContent = "Stop";
    try {
      await ask(form, answer, running.signal);
    } catch (error) {
      if (error.name !== "AbortError") answer.append(element("p", "told bad", `no answer: ${error.message}`));
    }
    running = null;
    button.textContent = "Try it";
  });
}

/** Shows this page as a caller with credentials gets it. */
async function asCaller() {
  const response = await fetch(location.href, { headers: { ...credentials(), accept: "text/html" } });
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  document.title = page.title;
  document.body.replaceWith(page.body);
  start();
}

function start() {
  document.querySelectorAll("form.try").forEach(prepare);
  const form = document.querySelector("#credentials");
  form.elements.token.value = sessionStorage.getItem("token") ?? "";
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    sessionStorage.setItem("token", form.elements.token.value.trim());
    asCaller();
  });
}

start();
// A browser cannot show a token when it goes to an address: the page that came is a stranger's.
if (sessionStorage.getItem("token")) asCaller();
