//! What the users of a billing system do, as transactions.

use std::sync::atomic::Ordering;

use rand::Rng;
use rand::rngs::StdRng;
use tokio_postgres::Error;

use super::Counters;
use super::session::{Parameters, Session};

/// One kind of transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    IssueInvoice,
    Pay,
    PayInPart,
    CorrectLine,
    DropLine,
    FallOverdue,
    ToggleDraft,
    DeleteInvoice,
    MoveInvoice,
    RenumberInvoice,
    RenumberLines,
    RewriteEmail,
    LoseEmail,
    NewCustomer,
    MergeCustomers,
    MoveAccount,
    OrderService,
    CancelService,
    RaisePrice,
    AllocatePayment,
    WriteMemo,
    Sweep,
}

/// How often each happens, of the sum of all. What adds and what removes rows are in balance.
const SHARES: [(Change, u32); 22] = [
    (Change::IssueInvoice, 120),
    (Change::Pay, 120),
    (Change::PayInPart, 60),
    (Change::CorrectLine, 120),
    (Change::DropLine, 40),
    (Change::FallOverdue, 80),
    (Change::ToggleDraft, 40),
    (Change::DeleteInvoice, 100),
    (Change::MoveInvoice, 50),
    (Change::RenumberInvoice, 25),
    (Change::RenumberLines, 25),
    (Change::RewriteEmail, 80),
    (Change::LoseEmail, 20),
    (Change::NewCustomer, 12),
    (Change::MergeCustomers, 8),
    (Change::MoveAccount, 20),
    (Change::OrderService, 40),
    (Change::CancelService, 40),
    (Change::RaisePrice, 4),
    (Change::AllocatePayment, 30),
    (Change::WriteMemo, 10),
    (Change::Sweep, 2),
];

impl Change {
    pub(super) fn choose(random: &mut StdRng) -> Self {
        let mut at = random.random_range(0..SHARES.iter().map(|(_, share)| share).sum());
        for (change, share) in SHARES {
            if at < share {
                return change;
            }
            at -= share;
        }
        Self::Pay
    }

    /// Does it in one transaction; answers with the number of rows changed, 0 when there was nothing to do it to.
    pub(super) async fn apply(
        self,
        session: &mut Session,
        random: &mut StdRng,
        counters: &Counters,
    ) -> Result<u64, Error> {
        session.begin().await?;
        let rows = self.statements(session, random, counters).await?;
        session.commit().await?;
        Ok(rows)
    }

    async fn statements(self, session: &mut Session, random: &mut StdRng, counters: &Counters) -> Result<u64, Error> {
        let customer = random.random_range(1..=counters.customer.load(Ordering::Relaxed).max(1));
        let account = random.random_range(1..=counters.account.load(Ordering::Relaxed).max(1));
        let cents = i64::from(random.random_range(-500..5_000));
        // Most deletions hit the oldest invoices, as most readers look at the newest.
        let Some(invoice) = session.find(ANY_INVOICE, &[&random.random_range(1..=newest(counters))]).await? else {
            return issue_invoice(session, random, counters, customer).await;
        };
        let (year, number): (i16, i32) = (invoice.get(0), invoice.get(1));
        match self {
            Self::IssueInvoice => issue_invoice(session, random, counters, customer).await,
            Self::Pay => {
                let payment = counters.payment.fetch_add(1, Ordering::Relaxed) + 1;
                let paid = session.execute(PAY_THE_REST, &[&payment, &year, &number]).await?;
                Ok(paid + session.execute(MARK_PAID, &[&year, &number]).await?)
            }
            Self::PayInPart => {
                let payment = counters.payment.fetch_add(1, Ordering::Relaxed) + 1;
                let known = random.random_bool(0.8);
                let (to_year, to_number) = (known.then_some(year), known.then_some(number));
                session.execute(PAY, &[&payment, &to_year, &to_number, &cents.abs()]).await
            }
            Self::CorrectLine => {
                let line = random.random_range(1..=4_i16);
                let changed = session.execute(CORRECT_LINE, &[&year, &number, &line, &cents]).await?;
                Ok(changed + if changed > 0 { session.execute(ADD_UP, &[&year, &number]).await? } else { 0 })
            }
            Self::DropLine => {
                let dropped = session.execute(DROP_LINE, &[&year, &number]).await?;
                Ok(dropped + if dropped > 0 { session.execute(ADD_UP, &[&year, &number]).await? } else { 0 })
            }
            Self::FallOverdue => session.execute(FALL_OVERDUE, &[&year, &number]).await,
            Self::ToggleDraft => session.execute(TOGGLE_DRAFT, &[&year, &number]).await,
            Self::DeleteInvoice => all(session, &DELETE_INVOICE, &[&year, &number]).await,
            Self::MoveInvoice => session.execute(MOVE_INVOICE, &[&year, &number, &customer]).await,
            Self::RenumberInvoice => {
                let to = counters.invoice.fetch_add(1, Ordering::Relaxed) + 1;
                all(session, &RENUMBER_INVOICE, &[&year, &number, &to]).await
            }
            // Two steps, so that a number is free before the next line takes it.
            Self::RenumberLines => all(session, &RENUMBER_LINES, &[&year, &number]).await,
            Self::RewriteEmail => session.execute(CHANGE_CUSTOMER, &[&customer, &number]).await,
            Self::LoseEmail => session.execute("UPDATE cust SET email = NULL WHERE cust_no = $1", &[&customer]).await,
            Self::NewCustomer => {
                let new = counters.customer.fetch_add(1, Ordering::Relaxed) + 1;
                let account = counters.account.fetch_add(1, Ordering::Relaxed) + 1;
                // The account first: its customer comes late, as in batch loads.
                let rows = session.execute(NEW_ACCOUNT, &[&account, &new]).await?;
                Ok(rows + session.execute(NEW_CUSTOMER, &[&new]).await?)
            }
            Self::MergeCustomers => {
                let into = random.random_range(1..=counters.customer.load(Ordering::Relaxed).max(1));
                all(session, &MERGE_CUSTOMERS, &[&customer, &into]).await
            }
            Self::MoveAccount => {
                let to = random.random_bool(0.7).then_some(customer);
                session.execute("UPDATE acct SET cust_no = $2 WHERE acct_no = $1", &[&account, &to]).await
            }
            Self::OrderService => session.execute(ORDER_SERVICE, &[&account, &random.random_range(0..10_i64)]).await,
            Self::CancelService => session.execute(CANCEL_SERVICE, &[&account]).await,
            Self::RaisePrice => session.execute(RAISE_PRICE, &[&random.random_range(0..10_i64)]).await,
            Self::AllocatePayment => session.execute(ALLOCATE_PAYMENT, &[&year, &number]).await,
            Self::WriteMemo => session.execute(WRITE_MEMO, &[&customer, &random.random_range(1..400_i32)]).await,
            Self::Sweep => session.execute(SWEEP, &[&number, &random.random_range(20..200_i64)]).await,
        }
    }
}

/// Runs statements one after another with the same parameters; answers with the number of rows they changed.
async fn all(session: &mut Session, statements: &[&'static str], parameters: Parameters<'_>) -> Result<u64, Error> {
    let mut rows = 0;
    for sql in statements {
        rows += session.execute(sql, parameters).await?;
    }
    Ok(rows)
}

fn newest(counters: &Counters) -> i32 {
    counters.invoice.load(Ordering::Relaxed).max(1)
}

async fn issue_invoice(
    session: &mut Session,
    random: &mut StdRng,
    counters: &Counters,
    customer: i32,
) -> Result<u64, Error> {
    let number = counters.invoice.fetch_add(1, Ordering::Relaxed) + 1;
    let lines = random.random_range(1..=6_i32);
    let inserted = session.execute(NEW_LINES, &[&number, &lines]).await?;
    Ok(inserted + session.execute(NEW_HEADER, &[&number, &customer]).await?)
}

const ANY_INVOICE: &str =
    "SELECT inv_yr, inv_no FROM inv_hdr WHERE inv_yr = 2026 AND inv_no >= $1 ORDER BY 1, 2 LIMIT 1";
const NEW_LINES: &str = "INSERT INTO inv_line (inv_yr, inv_no, ln_no, trf_cd, ln_txt, qty, amt) \
    SELECT 2026, $1, n, trf_cd, trf_nm, 1 + n % 2, mth_fee FROM generate_series(1, $2) n \
    CROSS JOIN LATERAL (SELECT * FROM tariff ORDER BY trf_cd OFFSET ($1 + n) % 10 LIMIT 1) t";
const NEW_HEADER: &str = "INSERT INTO inv_hdr (inv_yr, inv_no, cust_no, co_cd, acct_no, inv_dt, due_dt, stat_cd, tot_amt, tax_amt) \
    SELECT 2026, $1, $2, a.co_cd, a.acct_no, current_date, current_date + 14, 'open', s.amt, round(s.amt * 0.19, 2) \
    FROM (SELECT sum(amt) AS amt FROM inv_line WHERE (inv_yr, inv_no) = (2026, $1)) s \
    LEFT JOIN (SELECT co_cd, acct_no FROM acct WHERE cust_no = $2 ORDER BY 1, 2 LIMIT 1) a ON true";
const PAY: &str = "INSERT INTO paymt (pmt_id, inv_yr, inv_no, amt, mthd_cd) \
    VALUES ($1::bigint, $2, $3, ($4::bigint)::numeric / 100, (ARRAY['DD','CC','WT'])[1 + $1::bigint % 3])";
const PAY_THE_REST: &str = "INSERT INTO paymt (pmt_id, inv_yr, inv_no, amt, mthd_cd) \
    SELECT $1::bigint, inv_yr, inv_no, tot_amt, (ARRAY['DD','CC','WT'])[1 + $1::bigint % 3] FROM inv_hdr \
    WHERE (inv_yr, inv_no) = ($2, $3) AND stat_cd IN ('open', 'overdue')";
const MARK_PAID: &str = "UPDATE inv_hdr SET stat_cd = 'paid', upd_ts = localtimestamp \
    WHERE (inv_yr, inv_no) = ($1, $2) AND stat_cd IN ('open', 'overdue')";
const CORRECT_LINE: &str = "UPDATE inv_line SET amt = amt + ($4::bigint)::numeric / 100 \
    WHERE (inv_yr, inv_no, ln_no) = ($1, $2, $3)";
const ADD_UP: &str = "UPDATE inv_hdr SET tot_amt = (SELECT coalesce(sum(amt), 0) FROM inv_line l \
    WHERE (l.inv_yr, l.inv_no) = ($1, $2)), upd_ts = localtimestamp WHERE (inv_yr, inv_no) = ($1, $2)";
const DROP_LINE: &str = "DELETE FROM inv_line WHERE (inv_yr, inv_no) = ($1, $2) \
    AND ln_no = (SELECT max(ln_no) FROM inv_line l WHERE (l.inv_yr, l.inv_no) = ($1, $2))";
const FALL_OVERDUE: &str = "UPDATE inv_hdr SET stat_cd = 'overdue', upd_ts = localtimestamp \
    WHERE (inv_yr, inv_no) = ($1, $2) AND stat_cd = 'open'";
const TOGGLE_DRAFT: &str = "UPDATE inv_hdr SET stat_cd = CASE stat_cd WHEN 'draft' THEN 'open'::inv_stat \
    WHEN 'open' THEN 'void' WHEN 'void' THEN 'open' ELSE 'draft' END WHERE (inv_yr, inv_no) = ($1, $2)";
const MOVE_INVOICE: &str = "UPDATE inv_hdr SET cust_no = $3, (co_cd, acct_no) = \
    (SELECT co_cd, acct_no FROM acct WHERE cust_no = $3 ORDER BY 1, 2 LIMIT 1) WHERE (inv_yr, inv_no) = ($1, $2)";
const RENUMBER_INVOICE: [&str; 3] = [
    "UPDATE inv_hdr SET inv_no = $3 WHERE (inv_yr, inv_no) = ($1, $2)",
    "UPDATE inv_line SET inv_no = $3 WHERE (inv_yr, inv_no) = ($1, $2)",
    "UPDATE paymt SET inv_no = $3 WHERE (inv_yr, inv_no) = ($1, $2)",
];
const RENUMBER_LINES: [&str; 2] = [
    "UPDATE inv_line SET ln_no = ln_no + 1000 WHERE (inv_yr, inv_no) = ($1, $2) AND ln_no < 1000",
    "UPDATE inv_line SET ln_no = 1 + (SELECT count(*) FROM inv_line l WHERE (l.inv_yr, l.inv_no) = ($1, $2) \
     AND l.ln_no > inv_line.ln_no) WHERE (inv_yr, inv_no) = ($1, $2)",
];
const DELETE_INVOICE: [&str; 3] = [
    "DELETE FROM inv_line WHERE (inv_yr, inv_no) = ($1, $2)",
    "DELETE FROM paymt WHERE (inv_yr, inv_no) = ($1, $2)",
    "DELETE FROM inv_hdr WHERE (inv_yr, inv_no) = ($1, $2)",
];
const MERGE_CUSTOMERS: [&str; 3] = [
    "UPDATE inv_hdr SET cust_no = $2 WHERE cust_no = $1 AND $1 <> $2",
    "UPDATE acct SET cust_no = $2 WHERE cust_no = $1 AND $1 <> $2",
    "DELETE FROM cust WHERE cust_no = $1 AND $1 <> $2 AND $1 <> 7",
];
const CHANGE_CUSTOMER: &str =
    "UPDATE cust SET email = 'customer' || $1::int || '.' || $2::int || '@example.com' WHERE cust_no = $1";
const NEW_ACCOUNT: &str =
    "INSERT INTO acct (co_cd, acct_no, cust_no) VALUES (CASE WHEN $1::int % 2 = 0 THEN '01' ELSE '02' END, $1, $2)";
const NEW_CUSTOMER: &str = "INSERT INTO cust (cust_no, nm_first, nm_last, email) \
    VALUES ($1::int, 'New', 'Customer-' || $1::int, 'customer' || $1::int || '@example.com')";
const ORDER_SERVICE: &str = "INSERT INTO acct_svc (co_cd, acct_no, trf_cd) SELECT co_cd, acct_no, t.trf_cd FROM acct, \
    (SELECT trf_cd FROM tariff ORDER BY trf_cd OFFSET $2 LIMIT 1) t WHERE acct_no = $1 ON CONFLICT DO NOTHING";
const CANCEL_SERVICE: &str = "DELETE FROM acct_svc WHERE ctid = (SELECT ctid FROM acct_svc WHERE acct_no = $1 LIMIT 1)";
const RAISE_PRICE: &str = "UPDATE tariff SET mth_fee = mth_fee + 0.01 \
    WHERE trf_cd = (SELECT trf_cd FROM tariff ORDER BY trf_cd OFFSET $1 LIMIT 1)";
const ALLOCATE_PAYMENT: &str = "UPDATE paymt SET inv_yr = $1, inv_no = $2 \
    WHERE pmt_id = (SELECT max(pmt_id) FROM paymt WHERE inv_no IS NULL)";
const WRITE_MEMO: &str = "UPDATE cust SET memo_txt = (SELECT string_agg(md5(n::text), ' ') FROM generate_series(1, $2) n) \
    WHERE cust_no = $1";
const SWEEP: &str = "UPDATE inv_hdr SET tax_amt = round(tot_amt * 0.19, 2), upd_ts = localtimestamp WHERE (inv_yr, inv_no) IN \
    (SELECT inv_yr, inv_no FROM inv_hdr WHERE inv_no >= $1 ORDER BY 1, 2 LIMIT $2)";
