//! Reads of documents by id, as callers may see them. A document that is not the caller's is looked up like any other
//! and then is not there.

use headwater_store::{Document, DocumentReader};

use super::visibility::Visibility;
use super::{Bound, audit};
use crate::context::ReadContext;
use crate::problem::Problem;
use crate::projection::Torn;

impl Visibility {
    /// One document.
    pub(crate) async fn get(
        &self,
        reader: &dyn DocumentReader,
        id: &[u8],
        context: &ReadContext,
    ) -> Result<Option<Document>, Problem> {
        let begun = context.reads.begin();
        let kept = reader.at_hand(self.version, id);
        let at_hand = kept.is_some();
        let found = if at_hand { kept } else { reader.get(self.version, id).await? };
        context.reads.end(begun, usize::from(found.is_some()));
        if !self.is_bound(&context.principal) {
            return Ok(found.map(|document| self.show(document)).transpose()?);
        }
        let exists = found.is_some();
        let own = self.own_of(&self.bound(&context.principal), id, found)?;
        if own.is_none() {
            // What is not there is never at hand: a document that is takes as long to be denied.
            if at_hand {
                reader.get(self.version, id).await?;
            }
            audit::not_visible(context, &self.shape.model, exists);
        }
        Ok(own)
    }

    /// Several documents of one moment, in the order of `ids`. One that is named again is read and held once. `None`:
    /// they have more bytes than may be read for one list.
    pub(crate) async fn get_many(
        &self,
        reader: &dyn DocumentReader,
        ids: &[Vec<u8>],
        context: &ReadContext,
    ) -> Result<Option<Vec<Option<Document>>>, Problem> {
        let mut distinct: Vec<&Vec<u8>> = ids.iter().collect();
        distinct.sort_unstable();
        distinct.dedup();
        if distinct.len() == ids.len() {
            return self.get_distinct(reader, ids, context).await;
        }
        let distinct: Vec<Vec<u8>> = distinct.into_iter().cloned().collect();
        let Some(seen) = self.get_distinct(reader, &distinct, context).await? else { return Ok(None) };
        let one = |id: &Vec<u8>| distinct.binary_search(id).ok().and_then(|at| seen.get(at).cloned().flatten());
        Ok(Some(ids.iter().map(one).collect()))
    }

    async fn get_distinct(
        &self,
        reader: &dyn DocumentReader,
        ids: &[Vec<u8>],
        context: &ReadContext,
    ) -> Result<Option<Vec<Option<Document>>>, Problem> {
        let begun = context.reads.begin();
        let found = reader.get_many(self.version, ids, context.documents_bytes_max).await?;
        context.reads.end(begun, found.iter().flatten().flatten().count());
        let Some(found) = found else {
            // That those of others are large is not told: where some are not the caller's, only the others count.
            return if self.is_bound(&context.principal) {
                self.own_by_one(reader, ids, context).await
            } else {
                Ok(None)
            };
        };
        if !self.is_bound(&context.principal) {
            let show = |document: Option<Document>| document.map(|document| self.show(document)).transpose();
            return Ok(Some(found.into_iter().map(show).collect::<Result<_, _>>()?));
        }
        let bound = self.bound(&context.principal);
        let exist = found.iter().flatten().count();
        let own = ids.iter().zip(found).map(|(id, document)| self.own_of(&bound, id, document));
        let own: Vec<Option<Document>> = own.collect::<Result<_, _>>()?;
        let seen = own.iter().flatten().count();
        if seen < own.len() {
            audit::not_visible(context, &self.shape.model, exist > seen);
        }
        Ok(Some(own))
    }

    /// Those of these documents that are the caller's own, where there is no room for all: read one by one, and so not of
    /// one moment. `None`: there is none for these either.
    async fn own_by_one(
        &self,
        reader: &dyn DocumentReader,
        ids: &[Vec<u8>],
        context: &ReadContext,
    ) -> Result<Option<Vec<Option<Document>>>, Problem> {
        let bound = self.bound(&context.principal);
        let mut own: Vec<Option<Document>> = Vec::with_capacity(ids.len());
        let (mut bytes, mut exist) = (0, 0);
        for id in ids {
            let found = reader.get(self.version, id).await?;
            exist += usize::from(found.is_some());
            let seen = self.own_of(&bound, id, found)?;
            bytes += seen.as_ref().map_or(0, |document| document.body.len());
            own.push(seen);
            if bytes > context.documents_bytes_max && own.iter().flatten().count() > 1 {
                return Ok(None);
            }
        }
        let seen = own.iter().flatten().count();
        if seen < own.len() {
            audit::not_visible(context, &self.shape.model, exist > seen);
        }
        Ok(Some(own))
    }

    /// What is seen of a stored document by a caller who may see what is `bound`.
    fn own_of(&self, bound: &Bound, id: &[u8], found: Option<Document>) -> Result<Option<Document>, Torn> {
        match found {
            Some(document) if bound.allows(id, &document.body)? => self.show(document).map(Some),
            _ => Ok(None),
        }
    }
}
