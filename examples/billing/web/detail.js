// One invoice: lines, what was paid, what is left.

import { byId, element } from "./dom.js";
import { METHOD, STATUS, day, money, quantity } from "./format.js";

function table(caption, heads, rows) {
  const cell = (name, at, content) => element(name, { class: at === heads.length - 1 ? "amount" : undefined }, content);
  return element(
    "table",
    {},
    element("caption", {}, caption),
    element("thead", {}, element("tr", {}, heads.map((head, at) => {
      const made = cell("th", at, head);
      made.scope = "col";
      return made;
    }))),
    element("tbody", {}, rows.map((row) => element("tr", {}, row.map((content, at) => cell("td", at, content))))),
  );
}

/** Shows an invoice, as `invoice` of the API. */
export function showDetail(customer, invoice, currency) {
  const amount = (of) => money(of, currency);
  const lines = invoice.lines.map((line) => [
    line.description ?? line.tariff?.name ?? "–",
    quantity(line.quantity),
    amount(line.amount),
  ]);
  const payments = invoice.payments.map((payment) => [
    day(payment.received_at),
    METHOD[payment.method] ?? payment.method,
    amount(payment.amount),
  ]);
  const fact = (name, value) => element("div", {}, element("dt", {}, name), element("dd", {}, value));
  show(
    customer,
    `${invoice.year}-${invoice.number}`,
    element("p", { class: "facts-top" },
      element("span", { class: "badge", "data-status": invoice.status }, STATUS[invoice.status] ?? invoice.status),
      element("span", { class: "total" }, amount(invoice.total)),
    ),
    element("dl", {},
      fact("Issued", day(invoice.issued_on)),
      fact("Due", day(invoice.due_on)),
      fact("Tax in it", amount(invoice.tax)),
      fact("Paid so far", amount(invoice.paid)),
    ),
    lines.length ? table("What it is for", ["Item", "Quantity", "Amount"], lines) : null,
    payments.length ? table("Payments", ["Received", "By", "Amount"], payments) : null,
  );
}

/** Shows why there is nothing to show. */
export function showAbsent(customer, number, why) {
  show(customer, number, element("p", {}, why));
}

function show(customer, number, ...content) {
  const detail = byId("detail");
  const wasHidden = detail.hidden || detail.dataset.number !== number;
  const hadFocus = detail.contains(document.activeElement);
  detail.replaceChildren(
    element("div", { class: "bar" },
      element("h2", { id: "detail-title" }, `Invoice ${number}`),
      element("a", { class: "close", href: `#/${customer}` }, "Close"),
    ),
    ...content.filter(Boolean),
  );
  detail.dataset.number = number;
  detail.hidden = false;
  document.body.classList.add("has-detail");
  if (wasHidden || hadFocus) detail.focus({ preventScroll: !wasHidden });
}

/** Shows the list alone. */
export function hideDetail() {
  byId("detail").hidden = true;
  document.body.classList.remove("has-detail");
}
