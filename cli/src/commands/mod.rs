//! One module per subcommand.

mod check;
mod dead_letters;
mod demo;
mod models;
mod replay;
mod retire;
mod run;
mod status;
mod verify;
mod workload;

use std::future::Future;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::arguments::{Arguments, Command};
use crate::failure::{Failure, Outcome};

/// How long threads that wait for an answer of someone else keep the process from ending.
const LEFTOVERS_MAX: Duration = Duration::from_secs(5);

/// Does what the arguments say.
pub(crate) fn execute(arguments: Arguments) -> Outcome {
    let Arguments { global, command } = arguments;
    match command {
        Command::Run(arguments) => run::run(&global, &arguments),
        Command::Connect(arguments) => run::connect(&global, &arguments),
        Command::Project(arguments) => run::project(&global, &arguments),
        Command::Serve(arguments) => run::serve(&global, &arguments),
        Command::Demo(arguments) => demo::execute(&global, arguments),
        Command::Check(arguments) => check::execute(&global, &arguments),
        Command::Status(arguments) => status::execute(&global, &arguments),
        Command::Replay(arguments) => replay::execute(&global, &arguments),
        Command::Verify(arguments) => verify::execute(&global, &arguments),
        Command::DeadLetters(command) => dead_letters::execute(&global, &command),
        Command::Models(arguments) => models::execute(&global, &arguments),
        Command::Retire(arguments) => retire::execute(&global, &arguments),
        Command::Workload(arguments) => workload::execute(&global, &arguments),
    }
}

/// What `work` gives, unless it is told to stop before: then it is dropped, so it must leave nothing behind.
async fn unless_stopped<T>(stop: &CancellationToken, work: impl Future<Output = T>) -> Result<T, Failure> {
    tokio::select! {
        done = work => Ok(done),
        () = stop.cancelled() => Err(Failure::interrupted()),
    }
}

/// Runs `work` on a runtime of its own; it is told to stop by SIGTERM and Ctrl-C.
fn block_on<F: Future<Output = Outcome>>(work: impl FnOnce(CancellationToken) -> F) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::caused("cannot start the runtime", &error))?;
    let outcome: Outcome = runtime.block_on(async {
        let stop = CancellationToken::new();
        let signals = stop_on_signals(stop.clone())?;
        let outcome = work(stop).await;
        signals.abort();
        outcome
    });
    // What had to be put in order is in order; a request that is not answered must not hold up the end, which no signal
    // could bring about any more.
    runtime.shutdown_timeout(LEFTOVERS_MAX);
    outcome
}

/// Cancels `stop` at the first SIGTERM or SIGINT; at the second the process ends at once.
fn stop_on_signals(stop: CancellationToken) -> Result<tokio::task::JoinHandle<()>, Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let cannot = |error| Failure::caused("cannot listen to signals", &error);
    let mut terminate = signal(SignalKind::terminate()).map_err(cannot)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot)?;
    Ok(tokio::spawn(async move {
        loop {
            // Both arms only wait for the next signal; a dropped one has taken none.
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if stop.is_cancelled() {
                tracing::warn!("stopped at once by a second signal; everything acknowledged is safe");
                std::process::exit(130);
            }
            stop.cancel();
        }
    }))
}
