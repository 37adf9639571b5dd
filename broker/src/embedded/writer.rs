//! The thread that writes: group commit.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;
use std::vec;

use bytes::Bytes;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout_at;

use super::EmbeddedOptions;
use super::core::Core;
use super::maintenance::Maintenance;
use super::transaction::{Failure, Transaction};
use crate::{AppendBatch, Error, Offset, TopicPartition, TopicSpec};

/// A group ends when it has this many bytes of records: what waits behind it is durable sooner in a group of its own.
pub(super) const GROUP_BYTES: usize = 32 << 20;

pub(super) type Answer<T> = oneshot::Sender<Result<T, Error>>;

/// Something to write.
pub(super) enum Command {
    Append { append: Append, answer: Answer<Vec<Offset>> },
    OpenProducer { name: Arc<str>, answer: Answer<u64> },
    CreateTopics { specs: Vec<TopicSpec>, answer: Answer<()> },
    CommitOffsets { group: String, offsets: Vec<(TopicPartition, Offset)>, answer: Answer<()> },
    ForgetOffsets { group: String, partitions: Vec<TopicPartition>, answer: Answer<()> },
    Close(Answer<()>),
}

/// An append of a producer.
pub(super) struct Append {
    pub producer: Arc<str>,
    pub epoch: u64,
    pub batches: Vec<AppendBatch>,
    pub checkpoint: Option<Bytes>,
}

impl Command {
    fn byte_len(&self) -> usize {
        match self {
            Self::Append { append, .. } => append.batches.iter().map(|batch| batch.records.byte_len()).sum(),
            _ => 0,
        }
    }

    /// Who appends, and in which epoch.
    fn producer(&self) -> Option<(Arc<str>, u64)> {
        match self {
            Self::Append { append, .. } => Some((append.producer.clone(), append.epoch)),
            _ => None,
        }
    }

    /// The answer to a write whose group failed before its turn.
    fn unapplied(self) -> Settle {
        match self {
            Self::Append { answer, .. } => unapplied(answer),
            Self::OpenProducer { answer, .. } => unapplied(answer),
            Self::CreateTopics { answer, .. }
            | Self::CommitOffsets { answer, .. }
            | Self::ForgetOffsets { answer, .. }
            | Self::Close(answer) => unapplied(answer),
        }
    }
}

/// The numbers of the preludes in the log. There are few: one per table and version of its schema.
pub(super) struct PreludeNumbers(HashMap<Bytes, u32>);

impl PreludeNumbers {
    pub(super) fn get(&self, prelude: &Bytes) -> Option<u32> {
        self.0.get(prelude).copied()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn learn(&mut self, prelude: Bytes) {
        let number = self.0.len() as u32;
        self.0.insert(prelude, number);
    }
}

/// Whether more can be written.
#[derive(PartialEq, Eq)]
enum Flow {
    Open,
    Closed,
}

/// What the thread owns.
pub(super) struct Writer {
    core: Arc<Core>,
    commands: mpsc::UnboundedReceiver<Command>,
    /// Changes whenever there are new records.
    wake: watch::Sender<u64>,
    numbers: PreludeNumbers,
    /// Producers of which an append failed, with the epoch it was in.
    broken: HashMap<Arc<str>, u64>,
    maintenance: Maintenance,
}

impl Writer {
    pub(super) fn start(
        core: Arc<Core>,
        commands: mpsc::UnboundedReceiver<Command>,
        wake: watch::Sender<u64>,
        options: &EmbeddedOptions,
    ) -> Result<JoinHandle<()>, Error> {
        let numbers = core.preludes.read().iter().cloned().zip(0..).collect();
        let engine = |source: std::io::Error| Error::Engine {
            place: options.folder.display().to_string(),
            action: "start its writer",
            source: source.into(),
        };
        // Only to wait for a command or for a time.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(engine)?;
        let maintenance = Maintenance::new(options.maintenance_interval);
        let numbers = PreludeNumbers(numbers);
        let writer = Self { core, commands, wake, numbers, broken: HashMap::new(), maintenance };
        let run = move || runtime.block_on(writer.run());
        std::thread::Builder::new().name("log-writer".to_owned()).spawn(run).map_err(engine)
    }

    /// Writes until it is closed or nobody can send any more.
    async fn run(mut self) {
        loop {
            let maintaining = self.maintenance.pending(&self.core);
            let first = match maintaining {
                true => match self.commands.try_recv() {
                    Ok(command) => Some(command),
                    Err(TryRecvError::Empty) => None,
                    Err(TryRecvError::Disconnected) => return,
                },
                // A command is either received or stays in the queue, so the wait may end at any time.
                false => match timeout_at(self.maintenance.due(), self.commands.recv()).await {
                    Ok(Some(command)) => Some(command),
                    Ok(None) => return,
                    Err(_) => None,
                },
            };
            if let Some(first) = first
                && self.write_group(first) == Flow::Closed
            {
                return;
            }
            // In turns: neither the writes nor the maintenance can hold up the other.
            if maintaining {
                self.maintenance.slice(&self.core, &mut self.numbers);
            }
        }
    }

    /// Writes this and everything that waits behind it.
    fn write_group(&mut self, first: Command) -> Flow {
        let mut bytes = 0;
        let mut group = Vec::new();
        let mut next = Some(first);
        while let Some(command) = next {
            if let Command::Close(answer) = command {
                self.write(group);
                // The caller may have gone; the writer ends all the same.
                let _ = answer.send(Ok(()));
                return Flow::Closed;
            }
            bytes += command.byte_len();
            group.push(command);
            next = if bytes < GROUP_BYTES { self.commands.try_recv().ok() } else { None };
        }
        self.write(group);
        Flow::Open
    }

    /// Writes a group in one transaction and answers it.
    fn write(&mut self, group: Vec<Command>) {
        if group.is_empty() {
            return;
        }
        let started = Instant::now();
        let writes = group.len();
        let producers: Vec<_> = group.iter().filter_map(Command::producer).collect();
        let mut answers = Vec::with_capacity(writes);
        let mut group = group.into_iter();
        let Err(cause) = self.apply(&mut group, &mut answers) else {
            answers.into_iter().for_each(|answer| answer(None));
            self.core.metrics.commit_seconds.observe(started.elapsed().as_secs_f64());
            self.core.metrics.commit_writes.observe(writes as f64);
            return;
        };
        // Nothing of the group was written, so every answer is this failure, also for those not applied yet.
        tracing::error!(log = %self.core.place, error = %cause, "a group of writes failed");
        let error = self.core.failures("write", cause);
        for (producer, epoch) in producers {
            mark_broken(&mut self.broken, producer, epoch);
        }
        answers.extend(group.map(Command::unapplied));
        answers.into_iter().for_each(|answer| answer(Some(error())));
    }

    /// Applies the writes of a group in order and commits them. Takes from `group` and puts into `answers` as it goes.
    fn apply(&mut self, group: &mut vec::IntoIter<Command>, answers: &mut Vec<Settle>) -> heed::Result<()> {
        let mut transaction = Transaction::begin(&self.core, &mut self.numbers)?;
        for command in group {
            match command {
                Command::Append { append, answer } => {
                    let broken = self.broken.get(&append.producer) == Some(&append.epoch);
                    let result = transaction.append(&append, broken);
                    if result.is_err() {
                        mark_broken(&mut self.broken, append.producer.clone(), append.epoch);
                    }
                    settle(answers, answer, result)?;
                }
                Command::OpenProducer { name, answer } => settle(answers, answer, transaction.open_producer(&name))?,
                Command::CreateTopics { specs, answer } => settle(answers, answer, transaction.create_topics(&specs))?,
                Command::CommitOffsets { group, offsets, answer } => {
                    settle(answers, answer, transaction.commit_offsets(&group, &offsets))?;
                }
                Command::ForgetOffsets { group, partitions, answer } => {
                    settle(answers, answer, transaction.forget_offsets(&group, &partitions))?;
                }
                Command::Close(answer) => settle(answers, answer, Ok(()))?,
            }
        }
        if transaction.commit()? {
            self.wake.send_modify(|appends| *appends += 1);
        }
        Ok(())
    }
}

/// Answers a write: with its own result, or with the failure of its group.
type Settle = Box<dyn FnOnce(Option<Error>)>;

/// Keeps the answer until the transaction has ended. Fails if the transaction must be given up.
fn settle<T: 'static>(answers: &mut Vec<Settle>, answer: Answer<T>, result: Result<T, Failure>) -> heed::Result<()> {
    // Whoever asked may have gone: then there is nobody to tell.
    match result {
        Ok(value) => answers.push(Box::new(move |failure| {
            let _ = answer.send(failure.map_or(Ok(value), Err));
        })),
        Err(Failure::Refused(error)) => answers.push(Box::new(move |_| {
            let _ = answer.send(Err(error));
        })),
        Err(Failure::Aborted(cause)) => {
            answers.push(unapplied(answer));
            return Err(cause);
        }
    }
    Ok(())
}

fn unapplied<T: 'static>(answer: Answer<T>) -> Settle {
    Box::new(move |failure| {
        let _ = answer.send(Err(failure.unwrap_or(Error::Closed)));
    })
}

/// Remembers that an append failed. An older epoch says nothing about a newer one.
fn mark_broken(broken: &mut HashMap<Arc<str>, u64>, producer: Arc<str>, epoch: u64) {
    let known = broken.entry(producer).or_insert(epoch);
    *known = epoch.max(*known);
}
