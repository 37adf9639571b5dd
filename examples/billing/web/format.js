// Values as people read them. Amounts stay texts to the end: a number of JavaScript would round some of them.

/** An exact amount, which may be absent, in a currency. */
export function money(amount, currency) {
  return new Intl.NumberFormat(undefined, { style: "currency", currency }).format(amount ?? "0");
}

const DAY = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeZone: "UTC" });

/** A date such as `2026-01-31`, or a date and time. */
export function day(date) {
  return date ? DAY.format(new Date(`${date.slice(0, 10)}T00:00:00Z`)) : "–";
}

/** A quantity such as `1.000`. */
export function quantity(text) {
  return new Intl.NumberFormat(undefined, { maximumFractionDigits: 3 }).format(text ?? "1");
}

export const STATUS = { open: "Open", overdue: "Overdue", paid: "Paid", void: "Withdrawn" };
export const METHOD = { CC: "Card", BT: "Bank transfer", DD: "Direct debit", CA: "Cash" };

/** Whether an invoice is still to be paid. */
export const isDue = ({ status }) => status === "open" || status === "overdue";
