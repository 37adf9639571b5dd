// The read API: a document, a page of a nested array, the changes of a document.

const { api } = await (await fetch("config.json")).json();

/** Why a request was not answered: what the API said, for people in `message` and for programs in `code`. */
export class Problem extends Error {
  constructor(status, body) {
    super(body.detail ?? `the API answered ${status}`);
    this.status = status;
    this.code = body.code;
  }
}

async function get(path) {
  // The browser keeps the answer and its ETag, asks whether it is still right, and is told so by 304 without a body.
  const response = await fetch(api + path, { cache: "no-cache" });
  const body = await response.json();
  if (!response.ok) throw new Problem(response.status, body);
  return body;
}

const INVOICE_FIELDS = "number,issued_on,due_on,status,total";

/** A page of a customer's invoices: `{data, page: {next, hasMore}, count}`. */
export function invoices(customer, { limit, after }) {
  const query = new URLSearchParams({ fields: INVOICE_FIELDS, limit, ...(after && { after }) });
  return get(`/v1/customer_account/${encodeURIComponent(customer)}/invoices?${query}`);
}

/** One invoice with lines and payments. Its key has two parts, year and number, joined by `~`. */
export function invoice(number) {
  return get(`/v1/invoice/${encodeURIComponent(number.replace("-", "~"))}`);
}

/**
 * Follows a customer: `changed` gets the document now and after every change, `gone` is called when there is none,
 * `state` with `live`, `connecting` or `closed`. The browser comes back by itself, and says what it saw last. Returns what ends it.
 */
export function follow(customer, { changed, gone, state }) {
  const fields = "id,name,email,unpaid_total,invoice_count,accounts.currency";
  const events = new EventSource(`${api}/v1/customer_account/${encodeURIComponent(customer)}?fields=${fields}`);
  events.addEventListener("open", () => state("live"));
  events.addEventListener("document", (event) => changed(JSON.parse(event.data)));
  events.addEventListener("deleted", gone);
  events.addEventListener("error", () => {
    const isOver = events.readyState === EventSource.CLOSED;
    state(isOver ? "closed" : "connecting");
    // An event source does not say what the answer was; the plain read does.
    if (isOver) get(`/v1/customer_account/${encodeURIComponent(customer)}?fields=id`).catch(gone);
  });
  return () => events.close();
}
