//! Takes a model out of service for which no projector is left to do it.

use mongodb::bson::{Document, doc};

use super::registry::{Known, State, VERSIONS, state_word};
use crate::mongodb::MongoOptions;
use crate::mongodb::server::{Fault, Server};
use crate::{Error, VersionState};

/// A version that was taken out of service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetiredVersion {
    /// The projector that kept it.
    pub projector: String,
    /// The collection with its documents, which stay.
    pub collection: String,
}

/// Retires every version of a model, whichever projector keeps it: readers in all processes see it no longer, and how far that
/// projector is counts no longer. Who keeps it finds out by itself, follows it no longer, and removes the
/// documents after its grace; a projector that still declares the model builds it anew when it starts the next time. None: no version of this model serves or is being built.
pub async fn retire_model(options: &MongoOptions, model: &str) -> Result<Vec<RetiredVersion>, Error> {
    let server = Server::connect(options).await?;
    server.within("retire a model", retire(&server, model)).await
}

async fn retire(server: &Server, model: &str) -> Result<Vec<RetiredVersion>, Fault> {
    let known = State::read_versions(server).await?.versions.into_values();
    let live = known.filter(|known| is_live(known, model));
    let retired = live.map(|Known { projector, collection, .. }| RetiredVersion { projector, collection }).collect();
    // As whoever replaces a version of another projector does: the state alone.
    let word = state_word(VersionState::Retired);
    let of_model = doc! { "model": model, "state": { "$ne": word } };
    let versions = server.database.collection::<Document>(VERSIONS);
    versions.update_many(of_model, doc! { "$set": { "state": word } }).await?;
    Ok(retired)
}

fn is_live(known: &Known, model: &str) -> bool {
    known.record.as_ref().is_some_and(|record| record.model == model && record.state != VersionState::Retired)
}
