//! One writer at a time under a projector's name.
//!
//! Whoever opens takes the next owner number. Every transaction that writes also writes the owner's document, under the
//! condition that the number is still its own: a process that was taken over, and does not know it yet, can commit
//! nothing any more, however late its writes arrive. The server itself makes the two wait for, or fail, one another.

use std::time::{SystemTime, UNIX_EPOCH};

use mongodb::ClientSession;
use mongodb::bson::{Document, doc};
use mongodb::options::ReturnDocument;

use super::server::{Fault, Server};

const OWNERS: &str = "headwater.owners";

/// The right to write.
#[derive(Clone, Debug)]
pub(super) struct Owner {
    /// What is written: `rows/…` or `documents/…`.
    pub(super) name: String,
    /// Rises with every owner of any name. Not below the seconds since [`EPOCH`], so that it rises also where a database is
    /// made anew or restored: stamps are made of it, and readers keep them.
    pub(super) number: u64,
}

/// The beginning of 2020, in seconds since 1970.
const EPOCH: u64 = 1_577_836_800;

impl Owner {
    /// Takes over; from here on nobody else writes under this name.
    pub(super) async fn take(server: &Server, name: String) -> Result<Self, Fault> {
        let (owner, stands) = Self::shut_out(server, name).await?;
        // A greater number that came between stays: then we are the ones who were taken over.
        if !stands {
            return Err(Fault::TakenOver);
        }
        // The driver does not say of such a command that the majority was not waited for.
        owner.confirm(server).await?;
        Ok(owner)
    }

    /// Shuts out whoever owned the name before; tells whether we own it now, or somebody who came a moment later. To those
    /// who share what is written, both are right.
    pub(super) async fn shut_out(server: &Server, name: String) -> Result<(Self, bool), Fault> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let number = next(server, "owner", now.saturating_sub(EPOCH)).await?;
        let owners = server.database.collection::<Document>(OWNERS);
        let taken = owners
            .find_one_and_update(doc! { "_id": &name }, doc! { "$max": { "number": number as i64 } })
            .upsert(true)
            .return_document(ReturnDocument::After)
            .max_time(server.operation_max())
            .await?;
        let stands = taken.and_then(|owner| owner.get_i64("number").ok());
        Ok((Self { name, number }, stands == Some(number as i64)))
    }

    /// Makes the transaction fail unless we are still the owner; leaves its mark, if it has one.
    async fn assert(&self, server: &Server, session: &mut ClientSession, mark: Option<u64>) -> Result<(), Fault> {
        let owners = server.database.collection::<Document>(OWNERS);
        let mut change = doc! { "$inc": { "transactions": 1_i64 } };
        if let Some(mark) = mark {
            change.insert("$set", doc! { "mark": mark as i64 });
        }
        let of_owner = doc! { "_id": &self.name, "number": self.number as i64 };
        let still = owners.update_one(of_owner, change).session(session).await?;
        if still.matched_count == 1 { Ok(()) } else { Err(Fault::TakenOver) }
    }

    /// Waits until majority reads see all that was committed under this name, also what got no answer: that has written the
    /// owner's document before this does, and a transaction that may still be committed is in the way.
    pub(super) async fn confirm(&self, server: &Server) -> Result<(), Fault> {
        let mut session = server.begin().await?;
        self.commit(server, &mut session).await
    }

    /// Whether somebody else is the owner, as far as can be seen.
    async fn is_lost(&self, server: &Server) -> bool {
        let owners = server.database.collection::<Document>(OWNERS);
        let owner = owners.find_one(doc! { "_id": &self.name }).max_time(server.operation_max()).await;
        owner.ok().flatten().and_then(|owner| owner.get_i64("number").ok()).is_some_and(|n| n as u64 != self.number)
    }

    /// [`Fault::TakenOver`] where that is behind a fault.
    pub(super) async fn explain(&self, server: &Server, fault: Fault) -> Fault {
        let may_be = matches!(fault, Fault::Driver(_) | Fault::Refused(_));
        if may_be && self.is_lost(server).await { Fault::TakenOver } else { fault }
    }

    /// Commits, as the owner. That is shown last, so that a process that is stopped in the middle keeps nobody from taking
    /// over for longer than it must.
    pub(super) async fn commit(&self, server: &Server, session: &mut ClientSession) -> Result<(), Fault> {
        self.commit_marked(server, session, None).await
    }

    /// The same, and leaves a mark of what is committed.
    pub(super) async fn commit_marked(
        &self,
        server: &Server,
        session: &mut ClientSession,
        mark: Option<u64>,
    ) -> Result<(), Fault> {
        self.assert(server, session, mark).await?;
        Ok(session.commit_transaction().await?)
    }

    /// The mark that was left last; 0 where none was.
    pub(super) async fn mark(&self, server: &Server) -> Result<u64, Fault> {
        let owners = server.database.collection::<Document>(OWNERS);
        let owner = owners.find_one(doc! { "_id": &self.name }).max_time(server.operation_max()).await?;
        Ok(owner.and_then(|owner| owner.get_i64("mark").ok()).map_or(0, |mark| mark as u64))
    }
}

/// The next number of a name, never given twice, and at least so great.
pub(super) async fn next(server: &Server, name: &str, least: u64) -> Result<u64, Fault> {
    let counters = server.database.collection::<Document>("headwater.counters");
    let least = i64::try_from(least).unwrap_or_default();
    let further = doc! { "$add": [{ "$ifNull": ["$n", 0_i64] }, 1_i64] };
    let counted = counters
        .find_one_and_update(doc! { "_id": name }, vec![doc! { "$set": { "n": { "$max": [further, least] } } }])
        .upsert(true)
        .return_document(ReturnDocument::After)
        .max_time(server.operation_max())
        .await?;
    let number = counted.and_then(|counter| counter.get_i64("n").ok()).and_then(|n| u64::try_from(n).ok());
    number.ok_or(Fault::Damaged("a counter cannot be read"))
}
