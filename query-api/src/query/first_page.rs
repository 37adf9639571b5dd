//! The first page of a list that is followed: what is on it, and which changes make a difference to it.

use std::sync::Arc;

use headwater_store::{Cursor, Document, DocumentReader};
use parking_lot::Mutex;

use super::list::{ListPage, ListQuery};
use crate::context::ReadContext;
use crate::problem::Problem;

/// A document on a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) id: Vec<u8>,
    pub(crate) stamp: u64,
}

/// What is on the page, as whoever follows it was told last.
#[derive(Debug, Default)]
pub(crate) struct FirstPage(Mutex<Shown>);

#[derive(Debug, Default)]
struct Shown {
    /// The list it was read of; `None`: it was not read yet.
    list: Option<Arc<ListQuery>>,
    members: Arc<[Member]>,
    has_more: bool,
    /// Id of the first document behind the page, where it was read: with it there is more, and without it perhaps not.
    behind: Option<Vec<u8>>,
    /// How far was looked, when more may follow: what else is behind makes no difference. The last member may stand
    /// before.
    last: Option<Cursor>,
    /// Whether it is being read: until that is done, nobody knows what makes a difference.
    is_reading: bool,
}

/// A page that was read.
pub(crate) struct ReadPage {
    /// Its documents, where each of them stands, and where the next page starts.
    pub(crate) page: ListPage,
    /// The same documents.
    pub(crate) members: Arc<[Member]>,
    behind: Option<Vec<u8>>,
}

/// What was on the page before.
pub(crate) struct Before {
    pub(crate) members: Arc<[Member]>,
    pub(crate) has_more: bool,
}

impl FirstPage {
    /// Whether it was read.
    pub(crate) fn is_known(&self) -> bool {
        self.0.lock().list.is_some()
    }

    /// The list that is to be read again; `None`: it is to be made anew, for it was not read yet, or what was few may be
    /// many now.
    pub(crate) fn list(&self) -> Option<Arc<ListQuery>> {
        self.0.lock().list.clone().filter(|list| !list.is_of_few())
    }

    /// Reads the first `limit` documents of a list that was asked for one more: whether there is more is known only as
    /// long as that one is there.
    pub(crate) async fn read(
        &self,
        list: &ListQuery,
        limit: usize,
        reader: &dyn DocumentReader,
        context: &ReadContext,
    ) -> Result<ReadPage, Problem> {
        self.0.lock().is_reading = true;
        let mut page = list.page(reader, true, context).await?;
        let behind = page.documents.get(limit).map(|(id, _)| id.clone());
        page.documents.truncate(limit);
        page.places.truncate(limit);
        // Where reading ended early, it went further than to the last member.
        if behind.is_some() {
            page.has_more = true;
            page.next = page.places.last().cloned().flatten();
        }
        let member = |(id, document): &(Vec<u8>, Document)| Member { id: id.clone(), stamp: document.stamp };
        let members = page.documents.iter().map(member).collect();
        Ok(ReadPage { page, members, behind })
    }

    /// Takes a page that was read as what is on it from now on; answers with what was, if that is known.
    pub(crate) fn show(&self, list: &Arc<ListQuery>, read: &ReadPage) -> Option<Before> {
        let ReadPage { page, members, behind } = read;
        let shown = Shown {
            list: Some(list.clone()),
            members: members.clone(),
            has_more: page.has_more,
            behind: behind.clone(),
            last: page.next.clone(),
            is_reading: false,
        };
        let before = std::mem::replace(&mut *self.0.lock(), shown);
        before.list.map(|_| Before { members: before.members, has_more: before.has_more })
    }

    /// Whether a change of this document, or its deletion, may make a difference to the page.
    pub(crate) fn concerns(&self, id: &[u8], document: Option<&Document>) -> bool {
        let shown = self.0.lock();
        let Some(list) = shown.list.as_ref().filter(|_| !shown.is_reading) else { return true };
        if shown.behind.as_deref() == Some(id) || shown.members.iter().any(|member| member.id == id) {
            return true;
        }
        document.is_some_and(|document| list.may_hold(id, &document.body, shown.last.as_ref()))
    }
}
