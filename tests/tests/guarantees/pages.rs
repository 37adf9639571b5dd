//! The pages that people see, in a real browser, over `headwater demo` as everybody starts it.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use headwater_tests::{browse, headwater, node};

/// A running demo. It is stopped with this.
struct Demo {
    child: Child,
    /// The page for customers.
    page: String,
    /// The API.
    api: String,
}

impl Demo {
    fn start() -> Self {
        let mut child = Command::new(headwater())
            .args(["demo", "--rate", "20", "--port", "0", "--admin-port", "0"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (to, said) = mpsc::channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        // Read to the end, or the demo would wait for someone to.
        std::thread::spawn(move || output.lines().map_while(Result::ok).for_each(|line| drop(to.send(line))));
        let mut demo = Self { child, page: String::new(), api: String::new() };
        while demo.page.is_empty() || demo.api.is_empty() {
            let line = said.recv_timeout(Duration::from_secs(90)).expect("the demo says where to look");
            let address = line.split_whitespace().next().unwrap_or_default();
            if line.ends_with("a customer's invoices, live") {
                demo.page = address.to_string();
            } else if let Some(api) = address.strip_suffix("/docs") {
                demo.api = api.to_string();
            }
        }
        demo
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // Its PostgreSQL goes with it.
        let _ = Command::new("kill").args(["-s", "TERM", &self.child.id().to_string()]).status();
        for _ in 0..200 {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_customer_sees_invoices_and_a_developer_the_reference() {
    let Some(node) = node() else { return };
    let demo = Demo::start();
    browse(&node, "touchpoint.mjs", &[&demo.page]);
    browse(&node, "reference.mjs", &[&demo.api]);
}
