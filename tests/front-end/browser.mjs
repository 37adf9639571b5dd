// What the checks of pages share: a browser, what went wrong in it, and what everybody must be able to use.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import assert from "node:assert/strict";

const require = createRequire(`${process.env.HEADWATER_NODE}/`);
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

/** Calls `check` with a browser, and closes it whatever happens. */
export async function withBrowser(check) {
  const browser = await chromium.launch({
    executablePath: process.env.HEADWATER_CHROMIUM,
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-sync"],
  });
  try {
    await check(browser);
  } finally {
    await browser.close();
  }
}

/** A page at `url`; `allowed` matches messages of the console that are no mistake. */
export async function open(browser, url, { width = 1280, height = 860, dark = false, allowed = /^$/ } = {}) {
  const context = await browser.newContext({
    viewport: { width, height }, colorScheme: dark ? "dark" : "light", locale: "en-GB", timezoneId: "UTC", deviceScaleFactor: 1.5,
  });
  const page = await context.newPage();
  page.setDefaultTimeout(15_000);
  page.mistakes = [];
  page.on("pageerror", (error) => page.mistakes.push(String(error)));
  page.on("console", (message) => {
    if (message.type() === "error" && !allowed.test(message.text())) page.mistakes.push(message.text());
  });
  // The console does not say why.
  page.on("response", async (response) => {
    if (response.status() >= 500) page.mistakes.push(`${response.url()}: ${await response.text().catch(String)}`);
  });
  await page.goto(url);
  return page;
}

/** Nothing went wrong, nothing is cut off, and everybody can use it. */
export async function sound(page, what) {
  assert.deepEqual(page.mistakes, [], what);
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  assert.ok(wide <= 0, `${what}: ${wide} pixels too wide`);
  // Colours are looked at when nothing moves.
  await page.emulateMedia({ reducedMotion: "reduce" });
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => globalThis.axe.run());
  assert.deepEqual(violations.map((one) => `${one.id}: ${one.nodes.map((node) => node.html).join(" ")}`), [], what);
  await page.emulateMedia({ reducedMotion: null });
}

/** A picture, where pictures are wanted. */
export async function picture(page, name) {
  const folder = process.env.HEADWATER_PICTURES;
  if (folder) await page.screenshot({ path: `${folder}/${name}.png` });
}
