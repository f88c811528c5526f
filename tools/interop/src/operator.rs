//! What the operator of the server under test does, by the operator's tool.

use std::io::Write;
use std::process::{Command, Stdio};

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

    /// Runs `vssctl` with these words, which have no blanks in them, and that on its standard input.
    pub async fn run(&self, words: &str, input: &str) -> Result<(), String> {
        let mut command = Command::new(&self.vssctl);
        command.args(words.split_whitespace());
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
        match output.status.success() {
            true => Ok(()),
            false => {
                let said = String::from_utf8_lossy(&output.stderr);
                Err(format!("vssctl {words}: expected ok, got {}", said.trim()))
            }
        }
    }
}
