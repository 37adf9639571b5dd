// A front end that uses the types generated from our OpenAPI document. It is compiled, not run: what is right must
// compile, and each line after `@ts-expect-error` must not.
import type { components, paths } from "./rest-types";

type Account = components["schemas"]["customer_account"];
type List = paths["/v1/customer_account"]["get"];
type Query = NonNullable<List["parameters"]["query"]>;
type Page = List["responses"][200]["content"]["application/json"];
type Problem = components["schemas"]["_problem"];

export function owed(account: Account): string {
  // Amounts are exact texts, and can be null.
  const total: string | null = account.unpaid_total;
  return total ?? "0";
}

export function openInvoices(account: Account): string[] {
  return account.invoices.filter((invoice) => invoice.status === "open").map((invoice) => invoice.number ?? "?");
}

export const overdue: Query = {
  "filter[invoices.status][in]": ["open", "overdue"],
  "filter[unpaid_total][gte]": "100.00",
  sort: "-unpaid_total",
  fields: ["id", "name", "invoices.total"],
  limit: 20,
  count: "estimated",
};

export async function page(query: Query, fetched: (query: Query) => Promise<Page | Problem>): Promise<string | null> {
  const answer = await fetched(query);
  if ("code" in answer) throw new Error(`${answer.code}: ${answer.detail} (${answer.requestId})`);
  const known = answer.data.flatMap((account) => (account ? [account.name] : []));
  return answer.page.hasMore && known.length > 0 ? answer.page.next : null;
}

// @ts-expect-error: not declared as an index
export const unsorted: Query = { sort: "name" };
// @ts-expect-error: there is no such field
export const misspelled: Query = { fields: ["nmae"] };
// @ts-expect-error: there is no such operator
export const unfiltered: Query = { "filter[email][like]": "%" };
// @ts-expect-error: an amount is a text
export const amount: Account["unpaid_total"] = 1.5;
