// A front end that uses the types generated from our GraphQL schema and a query of its own.
import type { AccountQuery, AccountQueryVariables } from "./graphql-types";

export const variables: AccountQueryVariables = { id: "7" };

export function summary(answer: AccountQuery): string {
  const account = answer.customerAccount;
  if (!account) return "nobody";
  const total: string | null | undefined = account.unpaid_total;
  const lines = account.invoices.flatMap((invoice) => invoice.lines.map((line) => line.amount));
  const more = answer.customerAccounts?.pageInfo.hasNextPage ?? false;
  return `${account.name}: ${total} (${lines.length} lines, ${more ? "more" : "all"})`;
}

// @ts-expect-error: an id is needed
export const without: AccountQueryVariables = {};
// @ts-expect-error: the query does not ask for it
export const email = (answer: AccountQuery) => answer.customerAccount?.email;
