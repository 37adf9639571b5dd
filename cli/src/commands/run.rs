//! `headwater run`: all roles in one process, until told to stop.

use std::process::ExitCode;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::block_on;
use crate::arguments::{Global, RunArguments};
use crate::config::Configuration;
use crate::control::Control;
use crate::failure::{Failure, Outcome};
use crate::pipeline::{Pipeline, PipelineOptions};
use crate::preflight::preflight;
use crate::{crash, logging};

pub(super) fn execute(global: &Global, arguments: &RunArguments) -> Outcome {
    logging::start(global.log_format, "info");
    crash::arm()?;
    let configuration = Configuration::load(&global.config)?;
    let options = PipelineOptions { bench_route: arguments.bench_route };
    block_on(|stop| async move {
        let wrong = preflight(&configuration).await;
        if !wrong.is_empty() {
            return Err(wrong.into());
        }
        let mut pipeline = Pipeline::start(&configuration, options).await?;
        reload_on_hangup(pipeline.control(), stop.clone())?;
        let (api, admin) = pipeline.addresses();
        tracing::info!(
            %api,
            %admin,
            sources = configuration.connectors.len(),
            models = configuration.models.len(),
            "running"
        );
        // Either may be dropped: what ended stays ended and is found by the stop.
        let outcome = tokio::select! {
            failure = pipeline.ended() => Err(failure),
            () = stop.cancelled() => Ok(ExitCode::SUCCESS),
        };
        tracing::info!("stopping");
        let stopped = pipeline.stop().await;
        let code = outcome?;
        stopped?;
        tracing::info!("stopped");
        Ok(code)
    })
}

/// SIGHUP reads the models again, as `POST /reload` of the admin port does.
fn reload_on_hangup(control: Arc<Control>, stop: CancellationToken) -> Result<(), Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut hangup =
        signal(SignalKind::hangup()).map_err(|error| Failure::caused("cannot listen to signals", &error))?;
    tokio::spawn(async move {
        loop {
            // A dropped arm has taken no signal.
            tokio::select! {
                Some(()) = hangup.recv() => {
                    if let Err(error) = control.read_again().await {
                        tracing::error!(error = crate::failure::chain(&error), "the models were not read again");
                    }
                }
                () = stop.cancelled() => return,
            }
        }
    });
    Ok(())
}
