-- A start: 500 customers, two accounts and four invoices each, with lines and payments. The same every time.

INSERT INTO tariff (trf_cd, trf_nm, svc_typ, mth_fee, unit_prc, end_dt) VALUES
    ('DSL050', 'Home 50',         'DSL', 29.90, NULL,     NULL),
    ('DSL100', 'Home 100',        'DSL', 39.90, NULL,     NULL),
    ('DSL016', 'Home 16 (old)',   'DSL', 24.95, NULL,     DATE '2024-12-31'),
    ('FIB500', 'Fibre 500',       'FIB', 49.90, NULL,     NULL),
    ('FIB1G0', 'Fibre 1000',      'FIB', 69.90, NULL,     NULL),
    ('VOICE1', 'Talk by minute',  'VOI',  4.95, 0.029000, NULL),
    ('VOICEF', 'Talk flat',       'VOI', 14.95, NULL,     NULL),
    ('MOB05G', 'Mobile 5 GB',     'MOB',  9.99, 0.000195, NULL),
    ('MOB20G', 'Mobile 20 GB',    'MOB', 19.99, 0.000098, NULL),
    ('TVBASE', 'Television',      'TV ', 12.50, NULL,     NULL);

INSERT INTO cust (cust_no, cust_typ, nm_first, nm_last, co_nm, email, lang_cd, crt_ts)
SELECT n,
       CASE WHEN n % 10 = 0 THEN 'B' ELSE 'P' END,
       CASE WHEN n % 10 <> 0 THEN (ARRAY['Ada','Grace','Edsger','Barbara','Alan','Katherine','Donald'])[1 + n % 7] END,
       CASE WHEN n % 10 <> 0 THEN (ARRAY['Miller','Dubois','Rossi','Novak','Jensen'])[1 + n % 5] || '-' || n END,
       CASE WHEN n % 10 = 0 THEN 'Works No. ' || n || ' Ltd' END,
       CASE WHEN n % 13 <> 0 THEN 'customer' || n || '@example.com' END,
       (ARRAY['EN','FR','IT','DE'])[1 + n % 4],
       TIMESTAMP '2019-01-01' + n * INTERVAL '17 hours'
FROM generate_series(1, 500) n;

INSERT INTO acct (co_cd, acct_no, cust_no, stat_flg, crd_lim, opn_dt)
SELECT CASE WHEN n % 2 = 0 THEN '01' ELSE '02' END, n, 1 + (n - 1) / 2,
       CASE WHEN n % 29 = 0 THEN 'S' ELSE 'A' END,
       CASE WHEN n % 3 = 0 THEN 250.00 + n END,
       DATE '2019-01-01' + n
FROM generate_series(1, 1000) n;

INSERT INTO acct_svc (co_cd, acct_no, trf_cd, qty, strt_dt)
SELECT a.co_cd, a.acct_no, t.trf_cd, 1 + a.acct_no % 2, a.opn_dt
FROM acct a
JOIN (SELECT trf_cd, row_number() OVER (ORDER BY trf_cd) AS nth FROM tariff) t
  ON t.nth IN (1 + a.acct_no % 10, 1 + (a.acct_no * 7 + 3) % 10);

INSERT INTO inv_hdr (inv_yr, inv_no, cust_no, co_cd, acct_no, inv_dt, due_dt, stat_cd, upd_ts)
SELECT 2026, n, 1 + (n - 1) / 4, a.co_cd, a.acct_no,
       DATE '2026-01-05' + 30 * ((n - 1) % 4),
       CASE WHEN n % 17 <> 0 THEN DATE '2026-01-19' + 30 * ((n - 1) % 4) END,
       (ARRAY['paid','paid','open','draft','paid','overdue','open'])[1 + n % 7]::inv_stat,
       TIMESTAMP '2026-01-05' + n * INTERVAL '11 seconds'
FROM generate_series(1, 2000) n
JOIN acct a ON a.acct_no = 2 * (1 + (n - 1) / 4) - n % 2;

INSERT INTO inv_line (inv_yr, inv_no, ln_no, trf_cd, ln_txt, qty, amt)
SELECT h.inv_yr, h.inv_no, l.ln_no, t.trf_cd,
       CASE WHEN l.ln_no < 3 THEN t.trf_nm ELSE 'Surcharge' END,
       CASE WHEN l.ln_no = 2 THEN 12.5 ELSE 1 END,
       t.mth_fee + l.ln_no * 0.01
FROM inv_hdr h
CROSS JOIN generate_series(1, 3) AS l (ln_no)
JOIN (SELECT *, row_number() OVER (ORDER BY trf_cd) AS nth FROM tariff) t ON t.nth = 1 + (h.inv_no + l.ln_no) % 10;

UPDATE inv_hdr h SET tot_amt = s.amt, tax_amt = round(s.amt * 0.19, 2)
FROM (SELECT inv_yr, inv_no, sum(amt) AS amt FROM inv_line GROUP BY 1, 2) s
WHERE (h.inv_yr, h.inv_no) = (s.inv_yr, s.inv_no);

INSERT INTO paymt (pmt_id, inv_yr, inv_no, rcv_ts, amt, mthd_cd)
SELECT inv_no, inv_yr, inv_no, inv_dt + INTERVAL '9 days 4 hours', tot_amt,
       (ARRAY['DD','CC','WT'])[1 + inv_no % 3]
FROM inv_hdr WHERE stat_cd = 'paid';
