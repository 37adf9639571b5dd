//! The connection: what is asked of a server, how long is waited for it, and what its errors mean.

use std::future::Future;
use std::time::{Duration, Instant};

use mongodb::bson::{Document, RawDocument, RawDocumentBuf, doc};
use mongodb::error::{ErrorKind, TRANSIENT_TRANSACTION_ERROR};
use mongodb::options::{
    Acknowledgment, ClientOptions, ReadConcern, ReadPreference, SelectionCriteria, TransactionOptions, WriteConcern,
};
use mongodb::{Client, ClientSession, Database};
use tokio::runtime::Handle;

use super::MongoOptions;
use super::bson::Writer;
use super::context::{Within, block};
use crate::Error;

/// Wire version of MongoDB 5.0, the first with snapshot reads outside of transactions.
const WIRE_VERSION_MIN: i64 = 13;

/// Shortest and longest pause before a transaction is made again.
const PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));

/// TransactionTooLarge, TransactionTooLargeForCache.
const TOO_LARGE: [i32; 2] = [257, 388];

/// Added to the server's own limits before we give up on an answer: it tells more than we know.
const PATIENCE: Duration = Duration::from_secs(5);

/// A server, or set of servers, that fits.
pub(super) struct Server {
    handle: Handle,
    client: Client,
    pub(super) database: Database,
    pub(super) place: String,
    operation_max: Duration,
    answer_max: Duration,
}

/// What went wrong, without the place.
#[derive(Debug)]
pub(super) enum Fault {
    Driver(mongodb::error::Error),
    /// The server took the command and refused a part of it.
    Refused(String),
    NoAnswer,
    Damaged(&'static str),
    /// The rows are of this format, and not of the one that is read here.
    OtherFormat {
        found: Option<i64>,
        read: i64,
    },
    TooManyRows(usize),
    /// The server does not take so much in one transaction.
    TooLarge(String),
    TakenOver,
    /// Another of several processes claimed what only one may write.
    Superseded,
}

impl From<mongodb::error::Error> for Fault {
    fn from(error: mongodb::error::Error) -> Self {
        match &*error.kind {
            ErrorKind::Command(command) if TOO_LARGE.contains(&command.code) => Self::TooLarge(command.message.clone()),
            _ => Self::Driver(error),
        }
    }
}

impl From<mongodb::bson::error::Error> for Fault {
    fn from(_: mongodb::bson::error::Error) -> Self {
        Self::Damaged("a document is not what was written")
    }
}

impl Fault {
    /// Whether the same transaction, made again at once, may well succeed.
    pub(super) fn is_transient(&self) -> bool {
        matches!(self, Self::Driver(error) if error.contains_label(TRANSIENT_TRANSACTION_ERROR))
    }
}

impl Server {
    /// Connects within the runtime it is called in, and looks whether the server fits.
    pub(super) async fn connect(options: &MongoOptions) -> Result<Self, Error> {
        let place = options.place();
        check_names(options, &place)?;
        let mut client_options = ClientOptions::parse(&options.uri)
            .await
            .map_err(|error| from_driver(&place, "read its connection string", error))?;
        client_options.app_name.get_or_insert_with(|| "headwater".into());
        client_options.server_selection_timeout.get_or_insert(options.selection_max);
        client_options.connect_timeout.get_or_insert(options.selection_max);
        client_options.min_pool_size.get_or_insert(options.connections_min);
        client_options.selection_criteria = Some(SelectionCriteria::ReadPreference(ReadPreference::Primary));
        client_options.read_concern = Some(ReadConcern::majority());
        client_options.write_concern = Some(durable(options.operation_max));
        let failed = |error| from_driver(&place, "connect", error);
        let client = Client::with_options(client_options).map_err(failed)?;
        let server = Self {
            handle: Handle::current(),
            database: client.database(&options.database),
            client: client.clone(),
            place: place.clone(),
            operation_max: options.operation_max,
            answer_max: options.operation_max + options.selection_max + PATIENCE,
        };
        server.check(options.shared).await?;
        let warm = async {
            client.warm_connection_pool().await;
            Ok(())
        };
        server.within("open connections", warm).await?;
        Ok(server)
    }

    async fn check(&self, shared: bool) -> Result<(), Error> {
        let hello = self.within("ask for its version", async {
            // Also shows wrong credentials, which a mere greeting would not.
            let ping = self.database.run_command(doc! { "listCollections": 1, "nameOnly": true });
            ping.await?;
            Ok(self.database.run_command(doc! { "hello": 1 }).await?)
        });
        let hello = hello.await?;
        match misfit(&hello, shared) {
            None => Ok(()),
            Some((what, remedy)) => {
                Err(Error::Unusable { place: self.place.clone(), what: what.into(), remedy, source: None })
            }
        }
    }

    /// Runs something of the driver's, for a bounded time.
    pub(super) async fn within<T>(
        &self,
        action: &'static str,
        work: impl Future<Output = Result<T, Fault>>,
    ) -> Result<T, Error> {
        self.bounded(work).await.map_err(|fault| self.fail(action, fault))
    }

    /// [`Self::within`], and the fault as it is.
    pub(super) async fn bounded<T>(&self, work: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
        let timed = async { tokio::time::timeout(self.answer_max, work).await };
        Within::new(&self.handle, timed).await.unwrap_or(Err(Fault::NoAnswer))
    }

    /// Makes a transaction, and makes it again while it is in another's way, for as long as the server may work on one.
    pub(super) async fn again_while_in_the_way<T>(
        &self,
        mut transaction: impl AsyncFnMut() -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let (began, mut pause) = (Instant::now(), PAUSE.0);
        loop {
            match self.bounded(transaction()).await {
                Err(fault) if fault.is_transient() && began.elapsed() < self.operation_max() => {
                    Within::new(&self.handle, async { tokio::time::sleep(pause).await }).await;
                    pause = (pause * 2).min(PAUSE.1);
                }
                done => return done,
            }
        }
    }

    /// [`Self::within`], waited for on this thread.
    pub(super) fn block<T>(
        &self,
        action: &'static str,
        work: impl Future<Output = Result<T, Fault>>,
    ) -> Result<T, Error> {
        block(self.within(action, work))
    }

    /// [`Self::block`] for work of many steps, each of which is bounded by itself.
    pub(super) fn block_in_steps<T>(
        &self,
        action: &'static str,
        work: impl Future<Output = Result<T, Fault>>,
    ) -> Result<T, Error> {
        block(Within::new(&self.handle, work)).map_err(|fault| self.fail(action, fault))
    }

    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Limit for the server's own work on an operation.
    pub(super) fn operation_max(&self) -> Duration {
        self.operation_max
    }

    /// A command that the server may work on for [`Self::operation_max`].
    pub(super) fn bounded_command(
        &self,
        name: &str,
        collection: &str,
        write: impl FnOnce(&mut Writer),
    ) -> RawDocumentBuf {
        Writer::document(|writer| {
            writer.text(name, collection);
            write(writer);
            writer.int("maxTimeMS", i64::try_from(self.operation_max.as_millis()).unwrap_or(i64::MAX));
        })
    }

    /// Makes a collection that may be there. Left to the first write in a transaction, it would be made there, in the way of
    /// everybody else who makes one.
    pub(super) async fn make_collection(&self, name: &str) -> Result<(), Fault> {
        const NAMESPACE_EXISTS: i32 = 48;
        let max_time_ms = i64::try_from(self.operation_max.as_millis()).unwrap_or(i64::MAX);
        let create = doc! { "create": name, "writeConcern": { "w": "majority" }, "maxTimeMS": max_time_ms };
        match self.database.run_command(create).await {
            Err(error) if !matches!(&*error.kind, ErrorKind::Command(it) if it.code == NAMESPACE_EXISTS) => {
                Err(error.into())
            }
            _ => Ok(()),
        }
    }

    /// Runs a command that writes; an answer that tells of a part that failed is a fault.
    pub(super) async fn write(&self, command: RawDocumentBuf, session: &mut ClientSession) -> Result<Document, Fault> {
        let answer = self.database.run_raw_command(command).session(session).await?;
        let told = |name: &str| answer.get(name).map(ToString::to_string);
        let errors = answer.get_array("writeErrors").into_iter().flatten().filter_map(|error| error.as_document());
        let mut codes = errors.filter_map(|error| error.get_i32("code").ok());
        if codes.any(|code| TOO_LARGE.contains(&code)) {
            return Err(Fault::TooLarge(told("writeErrors").unwrap_or_default()));
        }
        match told("writeErrors").or_else(|| told("writeConcernError")) {
            Some(why) => Err(Fault::Refused(why)),
            None => Ok(answer),
        }
    }

    /// Runs a command that answers with documents, and gives each to `each`.
    pub(super) async fn read(
        &self,
        command: RawDocumentBuf,
        session: Option<&mut ClientSession>,
        mut each: impl FnMut(&RawDocument) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let all = |document: &RawDocument| each(document).map(|()| true);
        self.read_while(command, session, all).await.map(|_| ())
    }

    /// The same until `each` answers `false`; tells whether it was given all.
    pub(super) async fn read_while(
        &self,
        command: RawDocumentBuf,
        session: Option<&mut ClientSession>,
        mut each: impl FnMut(&RawDocument) -> Result<bool, Fault>,
    ) -> Result<bool, Fault> {
        let command = self.database.run_raw_cursor_command(command);
        match session {
            None => {
                let mut cursor = command.await?;
                while cursor.advance().await? {
                    if !each(cursor.current())? {
                        return Ok(false);
                    }
                }
            }
            Some(session) => {
                let mut cursor = command.session(&mut *session).await?;
                while cursor.advance(session).await? {
                    if !each(cursor.current())? {
                        return Ok(false);
                    }
                }
            }
        }
        Ok(true)
    }

    /// [`Self::read`], where all answers together may take longer than one may: each is waited for by itself.
    pub(super) async fn read_in_steps(
        &self,
        command: RawDocumentBuf,
        session: &mut ClientSession,
        mut each: impl FnMut(&RawDocument) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let command = self.database.run_raw_cursor_command(command);
        let mut cursor = self.step(command.session(&mut *session)).await?;
        while self.step(cursor.advance(session)).await? {
            each(cursor.current())?;
        }
        Ok(())
    }

    async fn step<T>(&self, work: impl IntoFuture<Output = mongodb::error::Result<T>>) -> Result<T, Fault> {
        Ok(tokio::time::timeout(self.answer_max, work).await.map_err(|_| Fault::NoAnswer)??)
    }

    /// Begins a transaction: all of it is seen by majority reads and durable, or none of it.
    pub(super) async fn begin(&self) -> Result<ClientSession, Fault> {
        let mut session = self.client.start_session().await?;
        let options = TransactionOptions::builder()
            .read_concern(ReadConcern::snapshot())
            .write_concern(durable(self.operation_max))
            .selection_criteria(SelectionCriteria::ReadPreference(ReadPreference::Primary))
            .max_commit_time(self.operation_max)
            .build();
        session.start_transaction().with_options(options).await?;
        Ok(session)
    }

    /// The error a caller gets.
    pub(super) fn fail(&self, action: &'static str, fault: Fault) -> Error {
        let place = self.place.clone();
        match fault {
            Fault::Driver(error) => from_driver(&place, action, error),
            Fault::Refused(why) => Error::Engine { place, action, source: why.into() },
            Fault::NoAnswer => {
                let source = format!("no answer within {:?}", self.answer_max).into();
                Error::Unreachable { place, action, source }
            }
            Fault::Damaged(what) => Error::Damaged { place, what: what.into() },
            Fault::OtherFormat { found, read } => {
                let found = found.map_or("unreadable".to_owned(), |format| format.to_string());
                Error::Unusable {
                    place,
                    what: format!(
                        "another version of Headwater wrote its rows (their format is {found}, this version reads {read})"
                    ),
                    remedy: "start that version again, or name another `store.mongodb.database`: rows and documents are made \
                             there from the broker's log",
                    source: None,
                }
            }
            Fault::TooManyRows(limit) => Error::TooManyRows { limit },
            Fault::TooLarge(cause) => Error::BatchTooLarge { place, cause },
            Fault::TakenOver => Error::TakenOver { place },
            Fault::Superseded => Error::Superseded { place },
        }
    }
}

/// Why a server that greets like this cannot be used, and what to do.
fn misfit(hello: &Document, shared: bool) -> Option<(&'static str, &'static str)> {
    let number = |name: &str| hello.get_i32(name).map(i64::from).or_else(|_| hello.get_i64(name)).unwrap_or(0);
    if number("maxWireVersion") < WIRE_VERSION_MIN {
        return Some(("the server is older than MongoDB 5.0", "upgrade the server"));
    }
    let is_sharded = hello.get_str("msg").is_ok_and(|msg| msg == "isdbgrid");
    if is_sharded && shared {
        // A router begins a transaction at the latest time it knows of, which may be before what another one committed.
        let what = "through the routers of a sharded cluster a projector may not see what another one has committed, so \
                    several cannot share rows there";
        return Some((what, "use a replica set, or let one projector keep its rows to itself"));
    }
    if !hello.contains_key("setName") && !is_sharded {
        let what = "the server is no replica set, and so has neither transactions nor change streams";
        return Some((what, "start mongod with `--replSet rs0` and run `rs.initiate()` once; one node is enough"));
    }
    None
}

fn durable(wait_max: Duration) -> WriteConcern {
    WriteConcern::builder().w(Acknowledgment::Majority).journal(true).w_timeout(wait_max).build()
}

fn check_names(options: &MongoOptions, place: &str) -> Result<(), Error> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let fits = |name: &str, max: usize| !name.is_empty() && name.len() <= max && name.chars().all(plain);
    let unusable = |what: String, remedy| Err(Error::Unusable { place: place.into(), what, remedy, source: None });
    if !fits(&options.projector, 60) {
        let remedy = "give `headwater project` a `--name` of 1 to 60 letters, digits, `-` and `_`";
        return unusable(format!("`{}` cannot be a projector's name", options.projector), remedy);
    }
    if !fits(&options.database, 60) {
        let remedy = "use 1 to 60 letters, digits, `-` and `_`";
        return unusable(format!("`{}` cannot be a database's name", options.database), remedy);
    }
    Ok(())
}

fn from_driver(place: &str, action: &'static str, error: mongodb::error::Error) -> Error {
    // AuthenticationFailed, Unauthorized.
    let (denied, invalid) = match &*error.kind {
        ErrorKind::Authentication { .. } => (true, false),
        ErrorKind::Command(command) => (matches!(command.code, 13 | 18), false),
        ErrorKind::InvalidArgument { .. } | ErrorKind::InvalidTlsConfig { .. } => (false, true),
        _ => (false, false),
    };
    let is_away = matches!(
        &*error.kind,
        ErrorKind::Io(_)
            | ErrorKind::ServerSelection { .. }
            | ErrorKind::ConnectionPoolCleared { .. }
            | ErrorKind::DnsResolve { .. }
    );
    let place = place.to_owned();
    if denied {
        return Error::Refused { place, action, source: Box::new(error) };
    }
    if invalid {
        return Error::Unusable {
            place,
            what: "the connection string cannot be used".into(),
            remedy: "see the cause, and MongoDB's page on connection strings",
            source: Some(Box::new(error)),
        };
    }
    if is_away {
        return Error::Unreachable { place, action, source: Box::new(error) };
    }
    Error::Engine { place, action, source: Box::new(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_does_not_fit_is_told_by_its_greeting() {
        let problem = |hello: Document, shared| misfit(&hello, shared).map(|(what, _)| what);
        // MongoDB 4.4, and 5.0 of either kind.
        let old = problem(doc! { "maxWireVersion": 9, "setName": "rs0" }, false);
        assert!(old.is_some_and(|what| what.contains("older than MongoDB 5.0")), "{old:?}");
        assert_eq!(problem(doc! { "maxWireVersion": 13, "setName": "rs0" }, true), None);
        assert_eq!(problem(doc! { "maxWireVersion": 13_i64, "msg": "isdbgrid" }, false), None);
        let sharded = problem(doc! { "maxWireVersion": 13, "msg": "isdbgrid" }, true);
        assert!(sharded.is_some_and(|what| what.contains("cannot share rows")), "{sharded:?}");
        let alone = problem(doc! { "maxWireVersion": 21 }, false);
        assert!(alone.is_some_and(|what| what.contains("no replica set")), "{alone:?}");
        assert!(problem(doc! {}, false).is_some_and(|what| what.contains("older")));
    }

    #[test]
    fn what_does_not_answer_is_told_from_what_answers_otherwise() {
        let told = |error: mongodb::error::Error| from_driver("here", "read", error).is_unreachable();
        assert!(told(std::io::Error::from(std::io::ErrorKind::ConnectionRefused).into()));
        assert!(!told(mongodb::error::Error::custom("another one")));
    }
}
