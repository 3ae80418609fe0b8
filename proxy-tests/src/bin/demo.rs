//! `cargo demo [--keep]`: the demo scenario on a throw-away server, step by step.

use std::io::IsTerminal;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use proxy_tests::binary::{self, argon};
use proxy_tests::scenario;
use proxy_tests::server::{Server, Setup};
use proxy_tests::steps::{Steps, readable};

const USAGE: &str = "\
Usage: cargo demo [--keep]

Builds Argon, gets a mongod, starts a throw-away server on free ports and runs the demo scenario.
  --keep   leave the server running, with one branch to try";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Afterwards {
    Stop,
    Keep,
}

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let words: Vec<_> = arguments.iter().map(String::as_str).collect();
    let afterwards = match words[..] {
        [] => Afterwards::Stop,
        ["--keep"] => Afterwards::Keep,
        ["--help" | "-h"] => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match demo(afterwards) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("\nerror: {e:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn demo(afterwards: Afterwards) -> Result<()> {
    eprintln!("Building `argon`; the first time takes some minutes.");
    let binary = argon();
    install_mongod()?;
    let server = Setup::new()?.start()?;
    println!("A throw-away server: drivers at {}, admin API at {}", server.listen, server.admin);
    println!("Its data: {}\n", server.data_dir().display());

    let mut steps = Steps::default();
    let result = scenario::run(&server, &mut steps).await;
    if let Err(e) = result {
        let log = server.log();
        let lines: Vec<_> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(30)..].join("\n");
        return Err(e.context(format!("the server's last words:\n{last}\n")));
    }
    println!("\n{} steps in {}, all as expected.\n", steps.count(), readable(steps.elapsed()));

    let here = std::env::current_dir().unwrap_or_default();
    let name = binary.strip_prefix(&here).unwrap_or(binary).display();
    println!("Your own server:");
    println!("  {name} serve                  # drivers at 127.0.0.1:27017");
    println!("  {name} project create shop    # the rest in a second terminal");
    println!("  {name} branch create dev");
    println!("  {name} connect dev            # prints the URI for any driver or mongosh");
    match afterwards {
        Afterwards::Stop => stop(server),
        Afterwards::Keep => keep(server),
    }
}

/// In a process of its own with the terminal's stderr, so that its progress shows.
fn install_mongod() -> Result<()> {
    let mut command = Command::new(argon());
    command.args(["mongod", "install"]);
    if !std::io::stderr().is_terminal() {
        eprintln!("Looking for a mongod; if there is none, 42 MB are downloaded.");
    }
    let output = command.stderr(std::process::Stdio::inherit()).output();
    let output = output.context("start argon mongod install")?;
    if !output.status.success() {
        bail!("there is no mongod to run branches on");
    }
    print!("mongod: {}", String::from_utf8_lossy(&output.stdout));
    Ok(())
}

fn stop(mut server: Server) -> Result<()> {
    let status = server.stop(proxy_tests::machine::TERMINATE)?;
    if !status.success() {
        bail!("the server did not drain: {status}\n{}", server.log());
    }
    println!(
        "\nThe throw-away server is drained and gone. `cargo demo --keep` leaves one running."
    );
    Ok(())
}

fn keep(server: Server) -> Result<()> {
    let cli = server.cli();
    cli.run(&["branch", "create", "playground"])?;
    let uri = cli.run(&["connect", "playground"])?;
    let (pid, admin) = (server.pid(), server.admin.clone());
    let home = server.leave_running();
    println!("\nThe throw-away server runs on.");
    println!("  connect   {uri}");
    println!("  manage    ARGON_SERVER=http://{admin} {} branch list", binary::argon().display());
    println!("  log       {}", home.join("server.log").display());
    // Only when it has saved its branches may its folder go.
    println!("  stop      kill {pid} && tail --pid={pid} -f /dev/null && rm -r {}", home.display());
    Ok(())
}
