// The list of a customer's invoices: rows are kept, and only what changed in them is touched.

import { byId, element, flash, setText } from "./dom.js";
import { STATUS, day, isDue, money } from "./format.js";

const rows = new Map();

function row(customer, number) {
  const parts = {
    title: element("span", { class: "number" }),
    dates: element("span", { class: "dates soft" }),
    badge: element("span", { class: "badge" }),
    total: element("span", { class: "amount" }),
  };
  const link = element("a", { href: `#/${customer}/${number}` }, parts.title, parts.dates, parts.badge, parts.total);
  return { ...parts, link, item: element("li", {}, link) };
}

function fill(row, invoice, currency) {
  setText(row.title, invoice.number);
  const due = isDue(invoice) ? ` · due ${day(invoice.due_on)}` : "";
  setText(row.dates, day(invoice.issued_on) + due);
  row.badge.dataset.status = invoice.status;
  const restated = setText(row.badge, STATUS[invoice.status] ?? invoice.status);
  return setText(row.total, money(invoice.total, currency)) || restated;
}

/** Shows these invoices; `wanted` is `all`, `due` or `paid`, `chosen` the number of the one whose detail is open. */
export function showInvoices(customer, invoices, { currency, wanted, chosen }) {
  const list = byId("invoices");
  const shown = invoices.filter(
    (invoice) => wanted === "all" || (wanted === "due" ? isDue(invoice) : invoice.status === "paid"),
  );
  if (list.dataset.customer !== customer) rows.clear();
  const isFirst = rows.size === 0;
  list.dataset.customer = customer;
  const items = shown.map((invoice) => {
    const isNew = !rows.has(invoice.number);
    if (isNew) rows.set(invoice.number, row(customer, invoice.number));
    const known = rows.get(invoice.number);
    if (fill(known, invoice, currency) && !isFirst) flash(known.link);
    if (invoice.number === chosen) known.link.setAttribute("aria-current", "true");
    else known.link.removeAttribute("aria-current");
    return known.item;
  });
  for (const number of rows.keys()) {
    if (!invoices.some((invoice) => invoice.number === number)) rows.delete(number);
  }
  // Moving an element takes the focus from it; most of the time the order is the same.
  const isSame = items.length === list.children.length && items.every((item, at) => list.children[at] === item);
  if (!isSame) {
    const focused = document.activeElement;
    list.replaceChildren(...items);
    if (list.contains(focused)) focused.focus();
  }
  byId("none").hidden = items.length > 0;
}
