//! The secret that all servers of the documents share.

use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Binary, Document, doc};
use mongodb::options::ReturnDocument;

use crate::mongodb::server::{Fault, Server};

const SECRETS: &str = "headwater.secrets";

const NAME: &str = "servers";

/// The secret there is, or else `fresh`, which is the one from then on. Two that come at the same time both get that of the
/// first: the server writes it only where there is none, and answers with what stands then.
pub(super) async fn shared(server: &Server, fresh: &[u8]) -> Result<Vec<u8>, Fault> {
    let secrets = server.database.collection::<Document>(SECRETS);
    // Looked for first: a user who may only read finds what another one wrote.
    let known = secrets.find_one(doc! { "_id": NAME }).max_time(server.operation_max()).await?;
    let stored = match known {
        Some(known) => Some(known),
        None => {
            let fresh = Binary { subtype: BinarySubtype::Generic, bytes: fresh.to_vec() };
            secrets
                .find_one_and_update(doc! { "_id": NAME }, doc! { "$setOnInsert": { "secret": fresh } })
                .upsert(true)
                .return_document(ReturnDocument::After)
                .max_time(server.operation_max())
                .await?
        }
    };
    let secret = stored.as_ref().and_then(|stored| stored.get_binary_generic("secret").ok());
    secret.cloned().ok_or(Fault::Damaged("the secret of the servers cannot be read"))
}
