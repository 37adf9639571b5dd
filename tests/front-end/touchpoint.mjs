// The page for customers, as a customer uses it. Argument: its address.
import assert from "node:assert/strict";
import { open, picture, sound, withBrowser } from "./browser.mjs";

const [, , url] = process.argv;
/** Reads `of` until it is `wanted`, or another than `before`. */
const text = (page, selector) => page.locator(selector).innerText();

await withBrowser(async (browser) => {
  const page = await open(browser, url);
  await page.locator("#live[data-state=live]").waitFor();
  await page.locator("#invoices li").first().waitFor();
  assert.match(await text(page, "h1"), /^Hello, /);
  assert.match(await text(page, "#owed"), /^€[\d,]+\.\d\d$/);

  // Live: what is still to pay changes by itself, without a reload.
  const before = await text(page, "#owed");
  await page.waitForFunction((before) => document.querySelector("#owed").innerText !== before, before);

  // The detail of an invoice, by keyboard, with an address of its own.
  // The newest, which is withdrawn last; and by its number, for another may be the newest a moment later.
  const number = await page.locator("#invoices a .number").first().innerText();
  const link = page.locator("#invoices a", { has: page.getByText(number, { exact: true }) });
  await link.focus();
  await page.keyboard.press("Enter");
  await page.locator("#detail table").first().waitFor();
  assert.equal(await text(page, "#detail-title"), `Invoice ${number}`);
  assert.ok(page.url().endsWith(`#/7/${number}`));
  await page.locator("#detail tbody tr").first().waitFor();
  await sound(page, "wide and light");
  await picture(page, "invoices");
  await page.getByRole("link", { name: "Close" }).click();
  await page.locator("#detail").waitFor({ state: "hidden" });

  await page.getByText("Paid", { exact: true }).first().click();
  const states = await page.locator("#invoices .badge").allInnerTexts();
  assert.ok(states.every((state) => state === "Paid"), states.join());

  // Somebody who is not there: told what the API says.
  const absent = await open(browser, `${url}#/999999`, { allowed: /404/ });
  await absent.locator("#notice:not([hidden])").waitFor();
  assert.match(await text(absent, "#notice"), /there is no customer_account/);
  await sound(absent, "nobody");

  const small = await open(browser, url, { width: 390, height: 844, dark: true });
  await small.locator("#invoices li").first().waitFor();
  await sound(small, "small and dark");
  await picture(small, "invoices-small");
  await small.locator("#invoices a").first().click();
  await small.locator("#detail table").first().waitFor();
  assert.equal(await small.locator("#list-title").isVisible(), false, "one thing at a time");
  await sound(small, "small and dark, an invoice");
  await picture(small, "invoice-small");
});
console.log("the page for customers is sound");
