// The reference pages, as someone uses them who writes a front end. Argument: the address of the API.
import assert from "node:assert/strict";
import { open, picture, sound, withBrowser } from "./browser.mjs";

const [, , api] = process.argv;

await withBrowser(async (browser) => {
  const page = await open(browser, `${api}/docs`);
  await sound(page, "the index");
  await page.getByRole("link", { name: "customer_account" }).click();
  await page.locator("#fields tbody tr").first().waitFor();
  assert.match(await page.locator("#fields").innerText(), /invoices\.lines\.amount\s+exact decimal, as text/);

  /** Fills a form in, sends it, and waits for the answer. */
  const ask = async (section, values) => {
    const form = page.locator(`${section} form`);
    for (const [name, value] of Object.entries(values)) {
      const field = form.locator(`[name=${name}]`);
      if ((await field.evaluate((one) => one.tagName)) === "SELECT") await field.selectOption(value);
      else await field.fill(value);
    }
    await form.getByRole("button").click();
    const answer = page.locator(`${section} .answer`);
    await answer.locator(".told").waitFor();
    await answer.locator("pre").nth(1).waitFor();
    return answer.innerText();
  };
  assert.match(await ask("#one", { id: "7", fields: "id,name,unpaid_total" }), /200 OK[\s\S]*"unpaid_total": "/);
  await page.locator("#one").scrollIntoViewIfNeeded();
  await picture(page, "reference");
  const list = await ask("#list", { path: "invoices.status", operator: "eq", value: "paid", sort: "-unpaid_total", limit: "2", fields: "id" });
  assert.match(list, /filter\[invoices\.status\]\[eq\]=paid[\s\S]*200 OK[\s\S]*"hasMore": true/);
  assert.match(await ask("#batch", { ids: "7,999999", fields: "id" }), /200 OK[\s\S]*null/);
  assert.match(await ask("#graphql", {}), /200 OK[\s\S]*"customerAccount": \{/);
  assert.match(await ask("#one", { id: "999999", fields: "" }), /404 Not Found[\s\S]*document_not_found/);
  assert.match(await ask("#live", { id: "7", fields: "unpaid_total" }), /200 OK[\s\S]*document/);
  await page.locator("#live .answer pre").nth(2).waitFor();
  await page.locator("#live").getByRole("button", { name: "Stop" }).click();
  page.mistakes = page.mistakes.filter((mistake) => !mistake.includes("404"));
  await sound(page, "a model");

  const small = await open(browser, `${api}/v1/invoice/docs`, { width: 390, height: 844, dark: true });
  await sound(small, "small and dark");
});
console.log("the reference is sound");
