//! The right to append under a name.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::WriterHandle;
use super::tables::ProducerRow;
use super::writer::{Append, Command};
use crate::{AppendBatch, Error, Offset, Producer};

pub(super) struct EmbeddedProducer {
    writer: Arc<WriterHandle>,
    name: Arc<str>,
    epoch: u64,
}

impl EmbeddedProducer {
    pub(super) fn new(writer: Arc<WriterHandle>, name: Arc<str>, epoch: u64) -> Self {
        Self { writer, name, epoch }
    }
}

#[async_trait]
impl Producer for EmbeddedProducer {
    async fn checkpoint(&self) -> Result<Option<Bytes>, Error> {
        let core = &self.writer.core;
        let engine = |e| core.engine("read a checkpoint", e);
        let txn = core.env.read_txn().map_err(engine)?;
        let row = core.tables.producers.get(&txn, &self.name).map_err(engine)?.and_then(ProducerRow::decode);
        let row = row.ok_or_else(|| core.damaged(format!("producer `{}`", self.name)))?;
        if row.epoch != self.epoch {
            return Err(Error::Fenced { producer: self.name.to_string() });
        }
        Ok(row.checkpoint.map(Bytes::copy_from_slice))
    }

    async fn append(&self, batches: Vec<AppendBatch>, checkpoint: Option<Bytes>) -> Result<Vec<Offset>, Error> {
        let append = Append { producer: self.name.clone(), epoch: self.epoch, batches, checkpoint };
        self.writer.send(|answer| Command::Append { append, answer }).await
    }
}
