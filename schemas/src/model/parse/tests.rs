use super::*;

const HOUSE: &str = "
model: customer_account
version: 1
root: { table: billing.customers, key: id }
fields: { id: id, name: full_name, email: email }
nest:
  invoices:
    many: billing.invoices
    on: { customer_id: id }              # child column: parent column
    where: { status: { ne: draft } }     # the same predicate words as the REST filters
    order: [-issued_on]
    fields: [id, number, issued_on, due_on, status, total]
    nest:
      lines:    { many: billing.invoice_lines, on: { invoice_id: id }, fields: [description, quantity, amount] }
      payments: { many: billing.payments,      on: { invoice_id: id }, fields: [paid_at, amount, method] }
compute:
  unpaid_total:  { sum: invoices.total, where: { invoices.status: { in: [open, overdue] } } }
  invoice_count: { count: invoices }
indexes: [email, invoices.status, unpaid_total]
";

#[test]
fn the_example_of_the_handbook_is_read() {
    let model = parse("m.yaml", HOUSE, &ParseContext::default()).expect("valid");
    assert_eq!(model.name, "customer_account");
    assert_eq!(model.node.relations[0].node.relations.len(), 2);
    assert_eq!(model.root.table.to_string(), "billing.public.customers");
}
