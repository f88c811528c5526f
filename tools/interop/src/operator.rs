//! What the operator of the server under test does, by the operator's tool.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::Value;

/// `vssctl`, which finds the server's state as it does by itself: by `DATABASE_URL` or `VSS_DATA_DIR`.
pub struct Operator {
    vssctl: String,
}

impl Operator {
    pub fn new(vssctl: &str) -> Self {
        Operator {
            vssctl: vssctl.to_string(),
        }
    }

    /// What `vssctl` says to these words, which have no blanks in them, and that on its standard input.
    pub async fn run(&self, words: &str, input: &str) -> Result<Value, String> {
        let mut command = Command::new(&self.vssctl);
        command.arg("--json").args(words.split_whitespace());
        let input = input.to_string();
        let talk = move || -> std::io::Result<_> {
            let (stdin, pipe) = (Stdio::piped(), Stdio::piped);
            let mut child = command.stdin(stdin).stdout(pipe()).stderr(pipe()).spawn()?;
            if let Some(mut stdin) = child.stdin.take() {
                let _ = stdin.write_all(input.as_bytes()); // it may have failed without a look at it
            }
            child.wait_with_output()
        };
        let done = tokio::task::spawn_blocking(talk).await;
        let output = done
            .expect("no panic")
            .map_err(|e| format!("{}: expected it to run, got {e}", self.vssctl))?;
        let failed = |got: &str| format!("vssctl {words}: expected ok, got {}", got.trim());
        match output.status.success() {
            true => serde_json::from_slice(&output.stdout).map_err(|e| failed(&e.to_string())),
            false => Err(failed(&String::from_utf8_lossy(&output.stderr))),
        }
    }
}
