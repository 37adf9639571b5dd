// A customer's invoices. The address says what is shown: #/7 is customer 7, #/7/2026-12 an invoice of theirs.

import { follow, invoice, invoices } from "./api.js";
import { hideDetail, showAbsent, showDetail } from "./detail.js";
import { byId, flash, setText } from "./dom.js";
import { money } from "./format.js";
import { showInvoices } from "./list.js";

const PAGE = 8;
/** Least time between two reads that a change causes, in milliseconds. */
const READ_EVERY = 500;
/** Least time between two sentences for those who listen, in milliseconds. */
const SPEAK_EVERY = 15_000;

const shown = { customer: null, number: null, known: [], limit: PAGE, currency: "EUR", stop: null, spokenAt: 0 };

function route() {
  const [, customer = "7", number = null] = location.hash.split("/");
  return { customer, number };
}

function show() {
  const { customer, number } = route();
  shown.number = number;
  if (customer !== shown.customer) {
    shown.stop?.();
    Object.assign(shown, { customer, known: [], limit: PAGE });
    byId("customer").value = customer;
    notice(null);
    setText(byId("owed"), "…");
    const mine = (act) => (...given) => customer === shown.customer && act(...given);
    shown.stop = follow(customer, { changed: mine(changed), gone: mine(gone), state: mine(state) });
  }
  if (!number) hideDetail();
  list();
  refresh();
}

/** The customer's document, now or after a change. */
function changed(account) {
  shown.currency = account.accounts[0]?.currency ?? "EUR";
  notice(null);
  setText(byId("greeting"), `Hello, ${account.name ?? "there"}`);
  setText(byId("who"), account.email ?? "");
  setText(byId("count"), `(${account.invoice_count})`);
  const owed = money(account.unpaid_total, shown.currency);
  if (setText(byId("owed"), owed)) flash(byId("owed"));
  if (Date.now() - shown.spokenAt > SPEAK_EVERY) {
    shown.spokenAt = Date.now();
    setText(byId("spoken"), `Still to pay: ${owed}`);
  }
  refresh();
}

function gone(problem) {
  notice(problem?.message ?? `There is no customer ${shown.customer} any more.`);
  shown.known = [];
  setText(byId("greeting"), "My invoices");
  for (const id of ["owed", "count", "who"]) setText(byId(id), "");
  hideDetail();
  list();
}

function state(state) {
  byId("live").dataset.state = state;
  setText(byId("live"), { live: "live", connecting: "connecting", closed: "not connected" }[state]);
}

let reading = null;

/** Reads what is on the screen: at once, then again after the last of several changes. */
function refresh() {
  if (reading) {
    reading.again = true;
    return;
  }
  reading = { again: false };
  read().finally(() => setTimeout(() => {
    const { again } = reading;
    reading = null;
    if (again) refresh();
  }, READ_EVERY));
}

async function read() {
  const { customer, number, limit } = shown;
  const isCurrent = () => customer === shown.customer;
  const [page, one] = await Promise.allSettled([
    invoices(customer, { limit }),
    number && /^\d+-\d+$/.test(number) ? invoice(number) : null,
  ]);
  if (!isCurrent()) return;
  if (page.status === "fulfilled") {
    shown.known = page.value.data;
    byId("more").hidden = !page.value.page.hasMore;
    list();
  } else if (page.reason.status === undefined) {
    notice(`The API cannot be reached: ${page.reason.message}`);
  }
  if (!number || number !== shown.number) return;
  if (one.status === "rejected") {
    showAbsent(customer, number, one.reason.status === 404 ? "This invoice was withdrawn." : one.reason.message);
  } else if (String(one.value?.customer?.id) !== customer) {
    showAbsent(customer, number, "This is not an invoice of yours.");
  } else {
    showDetail(customer, one.value, shown.currency);
  }
}

function list() {
  const wanted = document.querySelector("input[name=show]:checked").value;
  showInvoices(shown.customer, shown.known, { currency: shown.currency, wanted, chosen: shown.number });
}

function notice(text) {
  byId("notice").hidden = !text;
  setText(byId("notice"), text ?? "");
}

byId("switch").addEventListener("submit", (event) => {
  event.preventDefault();
  location.hash = `#/${byId("customer").value}`;
});
byId("show").addEventListener("change", list);
byId("more").addEventListener("click", () => {
  shown.limit = Math.min(shown.limit + PAGE, 100);
  refresh();
});
addEventListener("hashchange", show);
show();
