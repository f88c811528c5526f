//! Drives a running VSS server with the wallet clients that wallets ship. README.md has the details.

mod checks;
mod clients;
mod clock;
mod issuer;
mod operator;
mod proxy;
mod signature;
mod wire;

use std::process::ExitCode;

use checks::Target;
use operator::Operator;

const USAGE: &str = "\
Usage: interop [OPTION VALUE]...

  --base-url URL        a tenant with signature authentication, by path
                        [VSS_BASE_URL, http://127.0.0.1:8080/t/demo/vss]
  --other-base-url URL  a second one on the same server
                        [VSS_OTHER_BASE_URL, http://127.0.0.1:8080/t/other/vss]
  --ops-url URL         the server's ops listener
                        [VSS_OPS_URL, http://127.0.0.1:9464]
  --vssctl FILE         the operator's tool, with the environment that it needs to
                        reach the server's state [VSSCTL, ../../bin/vssctl]
  --body-limit BYTES    the first tenant's body limit [104857600]
  --only TEXT           only checks whose line contains TEXT

Prints a line a check. Exit codes: 0 all passed, 1 some failed, 2 not run.";

#[tokio::main]
async fn main() -> ExitCode {
    if std::env::args().any(|arg| arg == "--help" || arg == "-h") {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let (target, only) = match parse(std::env::args().skip(1)) {
        Ok(parsed) => parsed,
        Err(problem) => {
            eprintln!("{problem}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    if let Err(problem) = target.reach().await {
        eprintln!("{problem}");
        return ExitCode::from(2);
    }
    let (passed, failed) = checks::run(target, &only).await;
    println!("{passed} passed, {failed} failed");
    match (passed, failed) {
        (0, 0) => ExitCode::from(2),
        (_, 0) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<(Target, String), String> {
    let env = |name, default: &str| std::env::var(name).unwrap_or(default.to_string());
    let mut base_url = env("VSS_BASE_URL", "http://127.0.0.1:8080/t/demo/vss");
    let mut other_base_url = env("VSS_OTHER_BASE_URL", "http://127.0.0.1:8080/t/other/vss");
    let mut ops_url = env("VSS_OPS_URL", "http://127.0.0.1:9464");
    let mut vssctl = env("VSSCTL", "../../bin/vssctl");
    let mut body_limit = (100 << 20).to_string();
    let mut only = String::new();
    while let Some(arg) = args.next() {
        let (name, value) = match arg.split_once('=') {
            Some((name, value)) => (name.to_string(), Some(value.to_string())),
            None => (arg, args.next()),
        };
        let option = match name.as_str() {
            "--base-url" => &mut base_url,
            "--other-base-url" => &mut other_base_url,
            "--ops-url" => &mut ops_url,
            "--vssctl" => &mut vssctl,
            "--body-limit" => &mut body_limit,
            "--only" => &mut only,
            _ => return Err(format!("unknown option {name}")),
        };
        *option = value.ok_or(format!("{name} needs a value"))?;
    }
    let body_limit = body_limit
        .parse()
        .map_err(|e| format!("--body-limit: {e}"))?;
    let operator = Operator::new(&vssctl);
    let target = Target::new(&base_url, &other_base_url, &ops_url, body_limit, operator)?;
    Ok((target, only))
}
