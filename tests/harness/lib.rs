//! What the end-to-end tests share: the running binary, its database, and eyes to look at both.
