//! One customer whom something happens to all the time, so that there is something to watch.

use std::time::Instant;

use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio_postgres::Error;

use super::session::Session;
use super::{SPOTLIGHT_CUSTOMER, connect};
use crate::failure::Failure;

/// Invoices the customer keeps, at most: the document stays readable.
const INVOICES_MAX: i64 = 8;

/// Issues, corrects and pays the invoices of one customer.
pub(crate) struct Spotlight {
    session: Session,
    random: StdRng,
    steps: u64,
}

impl Spotlight {
    /// Connects.
    pub(crate) async fn new(database: &tokio_postgres::Config) -> Result<Self, Failure> {
        Ok(Self { session: Session::new(connect(database).await?), random: StdRng::from_os_rng(), steps: 0 })
    }

    /// Commits the next change; answers with when that was, or nothing where another connection was in the way.
    pub(crate) async fn step(&mut self) -> Option<Instant> {
        self.steps += 1;
        match self.change().await {
            Ok(0) => None,
            Ok(_) => Some(Instant::now()),
            Err(error) => {
                tracing::debug!(error = %crate::failure::chain(&error), "the spotlight's change was given up");
                self.session.roll_back().await;
                None
            }
        }
    }

    async fn change(&mut self) -> Result<u64, Error> {
        use rand::Rng;
        let session = &mut self.session;
        session.begin().await?;
        let customer = SPOTLIGHT_CUSTOMER;
        let mut rows = match self.steps % 3 {
            0 => session.execute(PAY_OLDEST, &[&customer]).await?,
            1 => {
                let dropped = session.execute(DROP_OLDEST, &[&customer, &INVOICES_MAX]).await?;
                dropped + session.execute(ISSUE, &[&customer]).await?
            }
            _ => {
                let cents = self.random.random_range(-900..2_500_i64);
                session.execute(CORRECT_NEWEST, &[&customer, &cents]).await?
            }
        };
        if rows == 0 {
            rows = session.execute(ISSUE, &[&customer]).await?;
        }
        session.commit().await?;
        Ok(rows)
    }
}

const ISSUE: &str = "WITH header AS (INSERT INTO inv_hdr (inv_yr, inv_no, cust_no, inv_dt, due_dt, stat_cd, tot_amt, tax_amt) \
    SELECT 2027, coalesce(max(inv_no), 0) + 1, $1, current_date, current_date + 14, 'open', 54.85, 10.42 \
    FROM inv_hdr WHERE inv_yr = 2027 RETURNING inv_yr, inv_no) \
    INSERT INTO inv_line (inv_yr, inv_no, ln_no, trf_cd, ln_txt, qty, amt) \
    SELECT inv_yr, inv_no, line.* FROM header, \
    (VALUES (1, 'FIB500', 'Fibre 500', 1, 49.90), (2, 'VOICE1', 'Talk by minute', 1, 4.95)) AS line";
const DROP_OLDEST: &str = "WITH old AS (SELECT inv_yr, inv_no FROM inv_hdr WHERE cust_no = $1 \
    ORDER BY inv_dt DESC, inv_yr DESC, inv_no DESC OFFSET $2), \
    lines AS (DELETE FROM inv_line l USING old WHERE (l.inv_yr, l.inv_no) = (old.inv_yr, old.inv_no)), \
    payments AS (DELETE FROM paymt p USING old WHERE (p.inv_yr, p.inv_no) = (old.inv_yr, old.inv_no)) \
    DELETE FROM inv_hdr h USING old WHERE (h.inv_yr, h.inv_no) = (old.inv_yr, old.inv_no)";
const PAY_OLDEST: &str = "WITH paid AS (UPDATE inv_hdr SET stat_cd = 'paid', upd_ts = localtimestamp \
    WHERE (inv_yr, inv_no) = (SELECT inv_yr, inv_no FROM inv_hdr WHERE cust_no = $1 AND stat_cd IN ('open', 'overdue') \
    ORDER BY inv_dt, inv_yr, inv_no LIMIT 1) RETURNING inv_yr, inv_no, tot_amt) \
    INSERT INTO paymt (pmt_id, inv_yr, inv_no, amt, mthd_cd) \
    SELECT (SELECT least(coalesce(min(pmt_id), 0), 0) - 1 FROM paymt), inv_yr, inv_no, tot_amt, 'CC' FROM paid";
const CORRECT_NEWEST: &str = "WITH line AS (UPDATE inv_line SET amt = amt + ($2::bigint)::numeric / 100 \
    WHERE (inv_yr, inv_no, ln_no) = (SELECT inv_yr, inv_no, 1 FROM inv_hdr WHERE cust_no = $1 AND inv_yr = 2027 \
    AND stat_cd = 'open' ORDER BY inv_no DESC LIMIT 1) RETURNING inv_yr, inv_no) \
    UPDATE inv_hdr h SET tot_amt = tot_amt + ($2::bigint)::numeric / 100, upd_ts = localtimestamp \
    FROM line WHERE (h.inv_yr, h.inv_no) = (line.inv_yr, line.inv_no)";
