//! `headwater status`: where everything stands.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::Value;

use crate::arguments::{Global, StatusArguments};
use crate::client::Client;
use crate::failure::Outcome;
use crate::output::say;
use crate::report::status_text;

/// What rates are taken over when the status is shown once.
const RATE_OVER: Duration = Duration::from_millis(500);
const WATCH_EVERY: Duration = Duration::from_secs(1);

pub(super) fn execute(global: &Global, arguments: &StatusArguments) -> Outcome {
    let admin = Client::admin(arguments.address.admin.as_deref(), &global.config)?;
    let mut before: Option<Value> = None;
    loop {
        let now = admin.json("/status")?;
        if arguments.json {
            say!("{now}");
        } else if before.is_some() {
            let clear = if arguments.watch && std::io::stdout().is_terminal() { "\x1b[H\x1b[2J" } else { "" };
            say!("{clear}{}", status_text(&now, before.as_ref()));
        }
        let shown = arguments.json || before.is_some();
        if shown && !arguments.watch {
            return Ok(ExitCode::SUCCESS);
        }
        std::thread::sleep(if before.is_some() || arguments.json { WATCH_EVERY } else { RATE_OVER });
        before = Some(now);
    }
}
