-- A billing system as one finds them: terse names from the days of eight-character limits, keys of several columns,
-- flags in char(1), no foreign keys (the application "takes care of that"), times without a zone, and money as numeric.

CREATE TYPE inv_stat AS ENUM ('draft', 'open', 'overdue', 'paid', 'void');

-- Customers, private (P) and business (B).
CREATE TABLE cust (
    cust_no   integer      PRIMARY KEY,
    cust_typ  char(1)      NOT NULL DEFAULT 'P',
    nm_first  varchar(40),
    nm_last   varchar(60),
    co_nm     varchar(80),
    email     varchar(120),
    lang_cd   char(2)      NOT NULL DEFAULT 'EN',
    crt_ts    timestamp(0) NOT NULL DEFAULT localtimestamp,
    memo_txt  text
);

-- Tariffs: what a service costs.
CREATE TABLE tariff (
    trf_cd    char(6)       PRIMARY KEY,
    trf_nm    varchar(60)   NOT NULL,
    svc_typ   char(3)       NOT NULL,
    mth_fee   numeric(9,2)  NOT NULL,
    unit_prc  numeric(12,6),
    eff_dt    date          NOT NULL DEFAULT DATE '2020-01-01',
    end_dt    date
);

-- Accounts are numbered per company: the key has two columns. An account may wait for its customer.
CREATE TABLE acct (
    co_cd     char(2)       NOT NULL,
    acct_no   integer       NOT NULL,
    cust_no   integer,
    stat_flg  char(1)       NOT NULL DEFAULT 'A',
    ccy_cd    char(3)       NOT NULL DEFAULT 'EUR',
    crd_lim   numeric(11,2),
    opn_dt    date          NOT NULL DEFAULT current_date,
    PRIMARY KEY (co_cd, acct_no)
);
CREATE INDEX acct_ix1 ON acct (cust_no);

-- Which account has which tariff: a join table, with a quantity.
CREATE TABLE acct_svc (
    co_cd     char(2)   NOT NULL,
    acct_no   integer   NOT NULL,
    trf_cd    char(6)   NOT NULL,
    qty       smallint  NOT NULL DEFAULT 1,
    strt_dt   date      NOT NULL DEFAULT current_date,
    PRIMARY KEY (co_cd, acct_no, trf_cd)
);
CREATE INDEX acct_svc_ix1 ON acct_svc (trf_cd);

-- Invoice headers are numbered within a year.
CREATE TABLE inv_hdr (
    inv_yr    smallint      NOT NULL,
    inv_no    integer       NOT NULL,
    cust_no   integer,
    co_cd     char(2),
    acct_no   integer,
    inv_dt    date          NOT NULL,
    due_dt    date,
    stat_cd   inv_stat      NOT NULL DEFAULT 'draft',
    tot_amt   numeric(12,2) NOT NULL DEFAULT 0,
    tax_amt   numeric(12,2),
    upd_ts    timestamp     NOT NULL DEFAULT localtimestamp,
    PRIMARY KEY (inv_yr, inv_no)
);
CREATE INDEX inv_hdr_ix1 ON inv_hdr (cust_no);

-- Invoice lines: the invoice's key and a line number.
CREATE TABLE inv_line (
    inv_yr    smallint      NOT NULL,
    inv_no    integer       NOT NULL,
    ln_no     smallint      NOT NULL,
    trf_cd    char(6),
    ln_txt    varchar(80),
    qty       numeric(12,3) NOT NULL DEFAULT 1,
    amt       numeric(12,2) NOT NULL,
    PRIMARY KEY (inv_yr, inv_no, ln_no)
);

-- Payments. Some arrive without saying for which invoice.
CREATE TABLE paymt (
    pmt_id    bigint        PRIMARY KEY,
    inv_yr    smallint,
    inv_no    integer,
    rcv_ts    timestamp     NOT NULL DEFAULT localtimestamp,
    amt       numeric(12,2) NOT NULL,
    mthd_cd   char(2)       NOT NULL
);
CREATE INDEX paymt_ix1 ON paymt (inv_yr, inv_no);

-- One table with old rows in the change log, as some systems have for their own replication; the others have only keys.
ALTER TABLE paymt REPLICA IDENTITY FULL;
